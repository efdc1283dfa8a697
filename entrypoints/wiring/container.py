"""Who plays which part in production. Only here, in storage.py, upstreams.py and accounts.py are adapters named."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dependency_injector import containers, providers

from adapters.clock import SystemClock
from adapters.public_suffixes import BundledPublicSuffixes
from adapters.telemetry.event_log import FannedEventSink, LoggingEventSink
from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from adapters.tokens.jws import JwsTokenCodec
from adapters.upstream.clients import UpstreamClients
from adapters.upstream.failover import EndpointHealth, Failover
from adapters.upstream.registry import HttpUpstreamRegistry
from adapters.upstream.search import HttpUpstreamSearch
from adapters.upstream.token_client import HttpTokenRelay
from adapters.upstream.upstream_logins import UpstreamLogins
from application.access.authorize import Authorize
from application.access.caller import CallerIdentities
from application.access.challenges import Challenges
from application.access.check_account import CheckAccount
from application.access.grant_token import GrantToken
from application.access.grants import Grants
from application.access.login_attempts import OF_RELAYED, LoginAttempts
from application.access.provenance import Provenance
from application.access.pull_rules import PullRules
from application.access.read_permission import ReadPermissions
from application.access.relayed_logins import RelayedLogins
from application.access.relayed_tokens import RelayedTokens
from application.access.upstream_auth import UpstreamAuthCache
from application.blobs.fetch_blob import DownloadDependencies
from application.blobs.passthrough import Passthrough
from application.blobs.pull_blob import PullBlob
from application.blobs.running_downloads import RunningDownloads
from application.concurrency import BackgroundTasks
from application.eviction import Eviction
from application.listings import Listings
from application.manifests.cached_tags import CachedTags
from application.manifests.fetch_manifest import FetchManifest
from application.manifests.manifest_cache import ManifestCache
from application.manifests.pull_manifest import PullManifest
from application.manifests.resolve_tag import ResolveTag
from application.ping import AnswerPing
from application.ports.content import ContentStore
from application.ports.slow_steps import SlowSteps
from application.ports.telemetry import AllowanceTable, EventSink, MetricsPage
from application.ports.upstream import TokenRelay, UpstreamRegistry, UpstreamSearch
from application.search import Search
from application.status import ReportStatus
from application.upkeep.inspect import InspectCache
from application.upkeep.periodic import Upkeep
from application.upkeep.warm import WarmCache
from application.upstreams.allowance import Allowances
from application.upstreams.back_offs import BackOffs
from application.upstreams.outages import Outages
from domain.access_rules import AccessRules
from domain.account_policy import AccountPolicy
from domain.cache_policy import CachePolicy, Room
from domain.challenge_rewriter import ChallengeRewriter
from domain.ports import AccountDirectory, Clock, PublicSuffixes, TokenCodec
from domain.realm_policy import RealmPolicy
from domain.records import CallerId, mirror_caller
from domain.token_issuer import TokenIssuer
from domain.token_verifier import TokenVerifier
from domain.upstream_table import UpstreamTable
from domain.upstreams import Upstream
from entrypoints.settings import Settings
from entrypoints.wiring.accounts import account_check, account_directory, password_threads
from entrypoints.wiring.accounts import relayed_logins as make_relayed_logins
from entrypoints.wiring.storage import Storage, open_storage
from entrypoints.wiring.upstreams import open_upstreams


def _secret(settings: Settings) -> bytes:
    return settings.server_secret.get_secret_value().encode()


def _caller_key(settings: Settings) -> bytes:
    """Another key than that of the tokens, from the same secret: a fingerprint must never be of use as a signature."""
    return hashlib.blake2b(_secret(settings), person=b"cache callers").digest()


def _mirror_callers(upstreams: UpstreamTable) -> dict[Upstream, CallerId]:
    """By the login that it uses at each. Not keyed with a secret that may be random: what the mirror may read is to
    be known after a restart without its upstream too. So it is a slow hash, worth nothing to who reads the index.
    """
    return {
        one: mirror_caller(
            hashlib.scrypt(login.joined().encode(), salt=one.url.encode(), n=2**14, r=8, p=1, dklen=20).hex()
        )
        for one in upstreams.upstreams
        if (login := one.credentials)
    }


def _first(upstreams: UpstreamTable) -> Upstream:
    return upstreams.upstreams[0]


def _room(settings: Settings) -> Room:
    if settings.cache_dir is None:
        return Room(0)
    try:
        return Room(settings.cache_size.of(settings.cache_dir), len(settings.table.upstreams))
    except OSError:
        return Room(0)  # the folder is gone: nothing can be kept there


def _metrics(counting: CountingEventSink) -> MetricsPage:
    return counting


def make_counters(settings: Settings) -> SharedCounters:
    """For all workers; made before they are forked."""
    return SharedCounters(settings.workers, [one.url for one in settings.table.upstreams])


class Container(containers.DeclarativeContainer):
    """Each provider is annotated with its port, so that the type checker proves that the part can be played.

    `clients` is a dependency and no resource: an asynchronous resource would turn every provider above it
    into a future.
    """

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    clients: providers.Dependency[UpstreamClients] = providers.Dependency()
    storage: providers.Dependency[Storage] = providers.Dependency(instance_of=Storage)
    counting: providers.Dependency[CountingEventSink] = providers.Dependency(instance_of=CountingEventSink)

    service: providers.Provider[str] = settings.provided.self_auth_service
    upstreams: providers.Provider[UpstreamTable] = settings.provided.table
    upstream: providers.Provider[Upstream] = providers.Singleton(_first, upstreams)

    clock: providers.Provider[Clock] = providers.Singleton(SystemClock)
    metrics: providers.Provider[MetricsPage] = providers.Callable(_metrics, counting)
    events: providers.Provider[EventSink] = providers.Singleton(
        FannedEventSink, providers.Singleton(LoggingEventSink), counting
    )
    codec: providers.Provider[TokenCodec] = providers.Singleton(JwsTokenCodec, providers.Callable(_secret, settings))
    accounts: providers.Provider[AccountDirectory] = providers.Singleton(account_directory, settings, clock, events)
    suffixes: providers.Provider[PublicSuffixes] = providers.Singleton(BundledPublicSuffixes)

    rewriter: providers.Provider[ChallengeRewriter] = providers.Singleton(ChallengeRewriter, service)
    access_rules: providers.Provider[AccessRules] = settings.provided.access_rules
    rules: providers.Provider[PullRules] = providers.Singleton(PullRules, access_rules, events)
    policy: providers.Provider[AccountPolicy] = providers.Singleton(AccountPolicy, accounts)
    attempts: providers.Provider[LoginAttempts] = providers.Singleton(LoginAttempts, clock, events)
    passwords: providers.Provider[SlowSteps] = providers.Singleton(password_threads)
    check_account: providers.Provider[CheckAccount] = providers.Singleton(account_check, policy, attempts, passwords)
    issuer: providers.Provider[TokenIssuer] = providers.Singleton(
        TokenIssuer, service, clock, codec, settings.provided.token_ttl
    )
    verifier: providers.Provider[TokenVerifier] = providers.Singleton(TokenVerifier, service, clock, codec)
    realms: providers.Provider[RealmPolicy] = providers.Singleton(RealmPolicy, suffixes)

    relay: providers.Provider[TokenRelay] = providers.Singleton(HttpTokenRelay, clients, realms, clock)
    logins: providers.Provider[UpstreamLogins] = providers.Singleton(UpstreamLogins, relay, clock)
    health: providers.Provider[EndpointHealth] = providers.Singleton(EndpointHealth, events)
    failover: providers.Provider[Failover] = providers.Singleton(Failover, health)
    registry: providers.Provider[UpstreamRegistry] = providers.Singleton(
        HttpUpstreamRegistry, clients, logins, failover
    )
    upstream_search: providers.Provider[UpstreamSearch] = providers.Singleton(HttpUpstreamSearch, clients)

    background: providers.Provider[BackgroundTasks] = providers.Singleton(BackgroundTasks)
    upstream_auth: providers.Provider[UpstreamAuthCache] = providers.Singleton(
        UpstreamAuthCache,
        registry,
        service,
        storage.provided.upstream_auth,
        clock,
        events,
        background,
    )

    # --- the cache ---
    store: providers.Provider[ContentStore] = storage.provided.store
    cache_policy: providers.Provider[CachePolicy] = settings.provided.cache_policy
    caller_identities: providers.Provider[CallerIdentities] = providers.Singleton(
        CallerIdentities,
        storage.provided.tokens,
        codec,
        providers.Callable(_caller_key, settings),
        providers.Callable(_mirror_callers, upstreams),
    )
    room: providers.Provider[Room] = providers.Singleton(_room, settings)
    board: providers.Provider[AllowanceTable] = counting.provided.board
    allowances: providers.Provider[Allowances] = providers.Singleton(Allowances, board, clock)
    outages: providers.Provider[Outages] = providers.Singleton(
        Outages, providers.Singleton(BackOffs, allowances, clock, events), clock, events
    )
    relayed_attempts: providers.Provider[LoginAttempts] = providers.Singleton(
        LoginAttempts, clock, events, of_account=OF_RELAYED
    )
    relayed_logins: providers.Provider[RelayedLogins] = providers.Singleton(
        make_relayed_logins, registry, relayed_attempts, caller_identities, outages
    )
    grants: providers.Provider[Grants] = providers.Singleton(
        Grants, storage.provided.grants, cache_policy, clock, background
    )
    read_permissions: providers.Provider[ReadPermissions] = providers.Singleton(
        ReadPermissions, registry, grants, storage.provided.links, outages, background, clock
    )
    eviction: providers.Provider[Eviction] = providers.Singleton(
        Eviction,
        store,
        storage.provided.maintenance,
        storage.provided.usage,
        storage.provided.total,
        storage.provided.places,
        room,
        clock,
        events,
    )
    provenance: providers.Provider[Provenance] = providers.Singleton(
        Provenance, storage.provided.sent, access_rules, background
    )
    manifest_cache: providers.Provider[ManifestCache] = providers.Singleton(
        ManifestCache, store, eviction, provenance, events
    )
    cached_tags: providers.Provider[CachedTags] = providers.Singleton(
        CachedTags, storage.provided.tags, cache_policy, clock
    )
    downloads: providers.Provider[RunningDownloads] = providers.Singleton(
        RunningDownloads,
        providers.Singleton(
            DownloadDependencies,
            store,
            registry,
            read_permissions,
            eviction,
            provenance,
            events,
            background,
            settings.provided.fill_retries,
            clock,
        ),
        room,
        clock,
    )
    upkeep: providers.Provider[Upkeep] = providers.Singleton(
        Upkeep, eviction, downloads, read_permissions, cached_tags, manifest_cache, storage.provided.epoch, events
    )

    # --- what clients and operators ask ---
    challenges: providers.Provider[Challenges] = providers.Singleton(
        Challenges, upstream_auth, rewriter, verifier, relayed_logins
    )
    authorize: providers.Provider[Authorize] = providers.Singleton(
        Authorize, upstream_auth, check_account, verifier, challenges, rules, relayed_logins
    )
    answer_ping: providers.Provider[AnswerPing] = providers.Singleton(
        AnswerPing, authorize, challenges, registry, relayed_logins
    )
    listings: providers.Provider[Listings] = providers.Singleton(
        Listings, authorize, challenges, upstreams, registry, rules
    )
    search: providers.Provider[Search] = providers.Singleton(
        Search, authorize, listings, upstreams, upstream_search, rules
    )
    report_status: providers.Provider[ReportStatus] = providers.Singleton(ReportStatus, registry, clock)
    relayed: providers.Provider[RelayedTokens] = providers.Singleton(
        RelayedTokens, relay, caller_identities, grants, outages, relayed_logins
    )
    grant_token: providers.Provider[GrantToken] = providers.Singleton(
        GrantToken, upstream_auth, policy, check_account, issuer, relayed, upstreams, service
    )
    fetch_manifest: providers.Provider[FetchManifest] = providers.Singleton(
        FetchManifest, registry, read_permissions, manifest_cache, cached_tags, outages, events
    )
    resolve_tag: providers.Provider[ResolveTag] = providers.Singleton(
        ResolveTag, read_permissions, cached_tags, manifest_cache, fetch_manifest, outages
    )
    pull_manifest: providers.Provider[PullManifest] = providers.Singleton(
        PullManifest,
        authorize,
        challenges,
        upstreams,
        caller_identities,
        read_permissions,
        manifest_cache,
        fetch_manifest,
        resolve_tag,
        events,
    )
    passthrough: providers.Provider[Passthrough] = providers.Singleton(
        Passthrough, registry, read_permissions, events, clock, settings.provided.fill_retries
    )
    pull_blob: providers.Provider[PullBlob] = providers.Singleton(
        PullBlob,
        authorize,
        challenges,
        upstreams,
        caller_identities,
        read_permissions,
        store,
        provenance,
        eviction,
        downloads,
        passthrough,
        events,
    )
    warm_cache: providers.Provider[WarmCache] = providers.Singleton(WarmCache, pull_manifest, pull_blob)
    inspect_cache: providers.Provider[InspectCache] = providers.Singleton(
        InspectCache,
        store,
        storage.provided.maintenance,
        storage.provided.usage,
        storage.provided.tags,
        storage.provided.links,
        eviction,
        manifest_cache,
        storage.provided.epoch,
        clock,
    )


@asynccontextmanager
async def open_container(
    settings: Settings, counters: SharedCounters | None = None, row: int = 0
) -> AsyncIterator[Container]:
    """The parts, put together and running; one for each worker process. Needs a running event loop.

    `counters` are those of all workers, `row` is this one's.
    """
    counting = CountingEventSink(counters or make_counters(settings), row)
    async with (
        open_upstreams(settings, row) as clients,
        open_storage(settings, SystemClock()) as storage,
    ):
        container = Container(settings=settings, clients=clients, storage=storage, counting=counting)
        try:
            yield container
        finally:
            await close_parts(container)


async def close_parts(container: Container) -> None:
    """End what runs on its own, in the order in which one thing needs another."""
    await container.report_status().close()
    await container.upstream_auth().close()
    await container.upkeep().close()
    await container.downloads().close()
    await container.background().close()
    container.check_account().close()
