"""Dependency wiring: which class implements each port in production. Only the modules of this package name adapters."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from dependency_injector import containers, providers

from adapters.accounts.fixed import FixedAccountDirectory
from adapters.accounts.htpasswd import HashedAccountDirectory, HtpasswdAccountDirectory
from adapters.accounts.several import CombinedAccountDirectory
from adapters.clock import SystemClock
from adapters.public_suffixes import BundledPublicSuffixes
from adapters.storage.threads import Threads
from adapters.telemetry.activity import NoActivityTable, WorkerActivity, WorkerActivityTable
from adapters.telemetry.event_log import EventFanOut, LoggingEventSink
from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from adapters.telemetry.pull_log import NoPullLog, WorkerPullLog, WorkerPulls
from adapters.tokens.jws import JwsTokenCodec
from adapters.upstream.client import RequestsInProgress, UpstreamClients, open_clients
from adapters.upstream.connections import ProxyRules, SessionSettings
from adapters.upstream.failover import Failover
from adapters.upstream.registry import HttpUpstreamRegistry
from adapters.upstream.request_limits import RequestLimits
from adapters.upstream.search import HttpUpstreamSearch
from adapters.upstream.token_client import HttpTokenRelay
from adapters.upstream.upstream_logins import UpstreamLogins
from application.access.authorize import Authorize
from application.access.caller import CallerIdentities
from application.access.check_login import CheckLogin
from application.access.grant_token import GrantToken, RelayedTokens
from application.access.grants import Grants
from application.access.login_attempts import OF_RELAYED, LoginAttempts
from application.access.mirror_caller import MirrorCaller
from application.access.provenance import Provenance
from application.access.pull_rules import PullRules
from application.access.read_permission import ReadPermissions
from application.access.refusals import Refusals
from application.access.relayed_logins import RelayedLogins
from application.access.shared_lane import SharedCounting
from application.access.upstream_auth import UpstreamAuthCache
from application.blobs.fetch_blob import FetchBlob
from application.blobs.passthrough import Passthrough
from application.blobs.publish_stored import NoPublishing, PublishStored
from application.blobs.pull_blob import CachedBlobs, PullBlob
from application.blobs.running_downloads import RunningDownloads
from application.blobs.shared_download import NoSharing, SharedDownloads, SharesDownloads
from application.concurrency import BackgroundTasks
from application.eviction import Eviction
from application.listings import Listings
from application.manifests.cached_tags import CachedTags
from application.manifests.fetch_manifest import FetchManifest
from application.manifests.manifest_cache import ManifestCache
from application.manifests.pull_manifest import PullManifest
from application.page.administer import Administer
from application.page.browse_cache import BrowseCache
from application.page.downloads import ListDownloads
from application.page.explain_pull import DecidePull, ExplainPull
from application.page.history import ReadHistory
from application.page.image_contents import ImageContents
from application.page.recent_pulls import ListRecentPulls
from application.page.run_jobs import RunJobs
from application.page.traffic import MeasureTraffic
from application.page.upstreams import DescribeUpstreams
from application.page.viewer import IdentifyViewer
from application.page.visible import Visibility
from application.ping import AnswerPing
from application.ports.activity import ActivityTable
from application.ports.content import ContentStore
from application.ports.history import History, HistoryArchive
from application.ports.index import UsageIndex
from application.ports.jobs import Jobs
from application.ports.pins import PinIndex
from application.ports.pull_log import PullLog
from application.ports.rate_limits import RateLimitBoard
from application.ports.shared import SharedService, SharedStore
from application.ports.slow_steps import SlowSteps
from application.ports.telemetry import CacheByUpstream, EventSink, MetricsPage, TrafficCounts, WorkerStates
from application.ports.tracing import NoTracer, Tracer
from application.ports.turns import Turns
from application.ports.upstream import TokenRelay, UpstreamRegistry, UpstreamRequests, UpstreamSearch
from application.search import Search
from application.status import ReportStatus
from application.upkeep.manage_cache import ManageCache
from application.upkeep.manage_shared_content import ManageSharedContent
from application.upkeep.measure_by_upstream import MeasureByUpstream
from application.upkeep.periodic import Upkeep
from application.upkeep.pinned_images import PinnedImages
from application.upkeep.record_history import RecordHistory
from application.upkeep.shared_content import SharedContent
from application.upkeep.shared_upkeep import SharedUpkeep
from application.upkeep.warm import WarmCache
from application.upstreams.back_offs import Allowances, BackOffs
from application.upstreams.outages import Outages
from application.upstreams.rate_limit_outbox import RateLimitOutbox
from application.upstreams.shared_rate_limits import SharedRateLimits
from application.upstreams.troubles import FindTroubles
from domain.access_rules import AccessRules
from domain.account_policy import AccountPolicy
from domain.cache_policy import CacheCapacity, CachePolicy
from domain.challenge_rewriter import ChallengeRewriter
from domain.ports import AccountDirectory, Clock, TokenCodec
from domain.realm_policy import RealmPolicy
from domain.records import CallerId, mirror_caller
from domain.tokens import TokenIssuer, TokenVerifier
from domain.upstream_table import UpstreamTable
from domain.upstreams import Upstream
from entrypoints.settings import Settings, UpstreamSettings
from entrypoints.version import NAME, VERSION
from entrypoints.wiring.keys import derived_key, server_secret
from entrypoints.wiring.shared_tier import SharedTier
from entrypoints.wiring.storage import Storage, open_storage
from entrypoints.wiring.tracing import open_tracer

_KEY_BYTES = 32
_MIRROR_TOKEN_SECONDS = 86400
"""The lifetime of tokens that the mirror makes for its own pulls and that never leave the process: a large image may
take longer than TOKEN_TTL.
"""
_PASSWORD_THREADS = 2
"""Threads of each worker that hash passwords. A slow hash occupies a core; the other cores remain for pulls."""


def _account_directory(settings: Settings, clock: Clock, events: EventSink, stamp_key: bytes) -> AccountDirectory:
    fixed = FixedAccountDirectory(settings.accounts, stamp_key)
    if settings.htpasswd_file is None:
        return fixed
    in_file = HtpasswdAccountDirectory(settings.htpasswd_file, settings.taken_names, clock, events, stamp_key)
    return CombinedAccountDirectory(fixed, in_file)


def _operator_directory(settings: Settings, stamp_key: bytes) -> AccountDirectory:
    return HashedAccountDirectory({one.user: one.hashed for one in settings.admin_accounts}, stamp_key)


def _page_directory(accounts: AccountDirectory, operators: AccountDirectory) -> AccountDirectory:
    return CombinedAccountDirectory(accounts, operators)


def _mirror_callers(upstreams: UpstreamTable) -> dict[Upstream, CallerId]:
    """The identity of the mirror as a caller of each upstream: a hash of the login that it uses there.

    After a restart, the mirror must know what it may read even if the upstream is unavailable. So the hash uses no
    secret key, which may change at a restart. Instead the hash is slow, so that it does not reveal the login to an
    attacker who reads the index.
    """
    return {
        one: mirror_caller(
            hashlib.scrypt(login.joined().encode(), salt=one.url.encode(), n=2**14, r=8, p=1, dklen=20).hex()
        )
        for one in upstreams.upstreams
        if (login := one.credentials)
    }


def _cache_capacity(settings: Settings) -> CacheCapacity:
    if settings.cache_dir is None:
        return CacheCapacity(0)
    try:
        return CacheCapacity(settings.cache_size.of(settings.cache_dir), len(settings.table.upstreams))
    except OSError:
        return CacheCapacity(0)  # the folder does not exist, so nothing can be stored


def _shares_downloads(shared: SharedTier | None, provenance: Provenance, events: EventSink) -> SharesDownloads:
    return SharedDownloads(shared.store, shared.leases, provenance, events) if shared else NoSharing()


def _publish_stored(
    shared: SharedTier | None, content: ContentStore, eviction: Eviction, provenance: Provenance, events: EventSink
) -> PublishStored | NoPublishing:
    if shared is None:
        return NoPublishing()
    return PublishStored(content, eviction, provenance, shared.store, shared.leases, events)


def _shared_store(shared: SharedTier | None) -> SharedStore | None:
    return shared.store if shared else None


def _turns(shared: SharedTier | None) -> Turns | None:
    return shared.turns if shared else None


def _shared_content(shared: SharedTier | None, clock: Clock, events: EventSink) -> SharedContent | None:
    if shared is None:
        return None
    return SharedContent(shared.store, shared.leases, shared.uses, shared.knowledge, clock, events)


def _manage_shared_content(
    shared: SharedTier | None,
    content: SharedContent | None,
    local: ManageCache,
    manifest_cache: ManifestCache,
    pins: PinIndex,
    clock: Clock,
) -> ManageSharedContent | None:
    if shared is None or content is None:
        return None
    return ManageSharedContent(
        content, shared.store, shared.knowledge, local, manifest_cache, pins, shared.protection, clock
    )


def _shared_upkeep(
    shared: SharedTier | None, content: SharedContent | None, settings: Settings, clock: Clock
) -> SharedUpkeep | None:
    if shared is None or content is None:
        return None
    return SharedUpkeep(content, shared.uses, shared.protection, settings.shared_size, clock)


def _rate_limits(shared: SharedTier | None) -> RateLimitBoard | None:
    return shared.rate_limits if shared else None


def _outbox(shared: SharedTier | None) -> RateLimitOutbox | None:
    return RateLimitOutbox() if shared else None


def _shared_counting(shared: SharedTier | None, kind: str, background: BackgroundTasks) -> SharedCounting | None:
    return SharedCounting(shared.login_counts, kind, background) if shared else None


def _shared_services(shared: SharedTier | None) -> tuple[SharedService, ...]:
    return shared.services if shared else ()


def _pull_log(settings: Settings, pulls: WorkerPulls, clock: Clock) -> PullLog:
    return NoPullLog() if settings.page == "off" else WorkerPullLog(pulls, settings.table.upstreams, clock)


def _record_history(
    settings: Settings, worker: int, history: History, archive: HistoryArchive, clock: Clock
) -> RecordHistory | None:
    """The first worker records the history of all. Without a page, nobody does."""
    return RecordHistory(history, archive, clock) if settings.page != "off" and worker == 0 else None


def _measure_by_upstream(worker: int, usage: UsageIndex, metrics: CacheByUpstream) -> MeasureByUpstream | None:
    """The first worker measures for all."""
    return MeasureByUpstream(usage, metrics) if worker == 0 else None


def _pins_of_worker(pinned_images: PinnedImages, worker: int) -> PinnedImages | None:
    """The first worker looks after the pinned images for all."""
    return pinned_images if worker == 0 else None


def _activity_table(settings: Settings, slots: WorkerActivity, clock: Clock) -> ActivityTable:
    return NoActivityTable() if settings.page == "off" else WorkerActivityTable(slots, settings.table.upstreams, clock)


def make_counters(settings: Settings) -> SharedCounters:
    """The counters, the newest pulls, the running downloads, the history and the last job, which all workers share.
    They must be created before the fork.
    """
    upstreams = {one.url: [endpoint.url for endpoint in one.endpoints] for one in settings.table.upstreams}
    return SharedCounters(settings.workers, upstreams, VERSION)


class Container(containers.DeclarativeContainer):
    """Each provider is annotated with its port, and each dependency is passed by keyword. dependency-injector does not
    check either, so `tests/architecture/test_wiring.py` has mypy check every provider as an ordinary call.

    A provider that only one other provider uses is written there, unless tests or other modules need it by name.

    `clients` is a Dependency because an asynchronous Resource would turn every provider that depends on it into a
    future.
    """

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    clients: providers.Dependency[UpstreamClients] = providers.Dependency()
    storage: providers.Dependency[Storage] = providers.Dependency(instance_of=Storage)
    counting: providers.Dependency[CountingEventSink] = providers.Dependency(instance_of=CountingEventSink)
    tracer: providers.Dependency[Tracer] = providers.Dependency(default=NoTracer())

    service: providers.Provider[str] = settings.provided.self_auth_service
    upstreams: providers.Provider[UpstreamTable] = settings.provided.table
    upstream: providers.Provider[Upstream] = settings.provided.table.upstreams[0]

    clock: providers.Provider[Clock] = providers.Singleton(SystemClock)
    metrics: providers.Provider[MetricsPage] = counting.provided
    worker_states: providers.Provider[WorkerStates] = counting.provided
    cache_by_upstream: providers.Provider[CacheByUpstream] = counting.provided
    traffic_counts: providers.Provider[TrafficCounts] = counting.provided
    upstream_requests: providers.Provider[UpstreamRequests] = providers.Singleton(RequestsInProgress, clients=clients)
    events: providers.Provider[EventSink] = providers.Singleton(
        EventFanOut, sinks=providers.List(providers.Singleton(LoggingEventSink), counting)
    )
    pull_log: providers.Provider[PullLog] = providers.Singleton(
        _pull_log, settings=settings, pulls=counting.provided.pulls, clock=clock
    )
    history: providers.Provider[History] = counting.provided.history
    jobs: providers.Provider[Jobs] = counting.provided.jobs
    activity_table: providers.Provider[ActivityTable] = providers.Singleton(
        _activity_table, settings=settings, slots=counting.provided.activity, clock=clock
    )
    codec: providers.Provider[TokenCodec] = providers.Singleton(
        JwsTokenCodec, secret=providers.Callable(server_secret, settings=settings)
    )
    accounts: providers.Provider[AccountDirectory] = providers.Singleton(
        _account_directory,
        settings=settings,
        clock=clock,
        events=events,
        stamp_key=providers.Callable(derived_key, settings=settings, purpose="account stamps"),
    )
    access_rules: providers.Provider[AccessRules] = settings.provided.access_rules
    rules: providers.Provider[PullRules] = providers.Singleton(PullRules, rules=access_rules, events=events)
    policy: providers.Provider[AccountPolicy] = providers.Singleton(AccountPolicy, accounts=accounts)
    background: providers.Provider[BackgroundTasks] = providers.Singleton(BackgroundTasks)
    attempts: providers.Provider[LoginAttempts] = providers.Singleton(
        LoginAttempts,
        clock=clock,
        events=events,
        shared=providers.Callable(
            _shared_counting, shared=storage.provided.shared, kind="account", background=background
        ),
    )
    passwords: providers.Provider[SlowSteps] = providers.Singleton(Threads, count=_PASSWORD_THREADS, name="passwords")
    check_login: providers.Provider[CheckLogin] = providers.Singleton(
        CheckLogin,
        policy=policy,
        attempts=attempts,
        steps=passwords,
        key=providers.Callable(secrets.token_bytes, nbytes=_KEY_BYTES),
    )
    operators: providers.Provider[AccountDirectory] = providers.Singleton(
        _operator_directory,
        settings=settings,
        stamp_key=providers.Callable(derived_key, settings=settings, purpose="operators"),
    )
    page_logins: providers.Provider[AccountPolicy] = providers.Singleton(
        AccountPolicy, accounts=providers.Singleton(_page_directory, accounts=accounts, operators=operators)
    )
    metrics_attempts: providers.Provider[LoginAttempts] = providers.Singleton(LoginAttempts, clock=clock, events=events)
    metrics_login: providers.Provider[CheckLogin] = providers.Singleton(
        CheckLogin,
        policy=providers.Singleton(
            AccountPolicy,
            accounts=providers.Singleton(
                FixedAccountDirectory,
                accounts=settings.provided.metrics_accounts,
                stamp_key=providers.Callable(derived_key, settings=settings, purpose="metric accounts"),
            ),
        ),
        attempts=metrics_attempts,
        steps=passwords,
        key=providers.Callable(secrets.token_bytes, nbytes=_KEY_BYTES),
    )
    issuer: providers.Provider[TokenIssuer] = providers.Singleton(
        TokenIssuer, issuer=service, clock=clock, codec=codec, lifetime=settings.provided.token_ttl
    )
    verifier: providers.Provider[TokenVerifier] = providers.Singleton(
        TokenVerifier, issuer=service, clock=clock, codec=codec
    )
    relay: providers.Provider[TokenRelay] = providers.Singleton(
        HttpTokenRelay,
        clients=clients,
        realms=providers.Singleton(RealmPolicy, suffixes=providers.Singleton(BundledPublicSuffixes)),
        clock=clock,
    )
    registry: providers.Provider[UpstreamRegistry] = providers.Singleton(
        HttpUpstreamRegistry,
        clients=clients,
        logins=providers.Singleton(UpstreamLogins, relay=relay, clock=clock),
        failover=providers.Singleton(Failover, events=events),
    )
    upstream_search: providers.Provider[UpstreamSearch] = providers.Singleton(HttpUpstreamSearch, clients=clients)

    upstream_auth: providers.Provider[UpstreamAuthCache] = providers.Singleton(
        UpstreamAuthCache,
        registry=registry,
        service=service,
        index=storage.provided.index,
        clock=clock,
        events=events,
        background=background,
    )

    # --- the cache ---
    store: providers.Provider[ContentStore] = storage.provided.store
    pins: providers.Provider[PinIndex] = storage.provided.pins
    cache_policy: providers.Provider[CachePolicy] = settings.provided.cache_policy
    mirror_callers: providers.Provider[dict[Upstream, CallerId]] = providers.Singleton(
        _mirror_callers, upstreams=upstreams
    )
    caller_identities: providers.Provider[CallerIdentities] = providers.Singleton(
        CallerIdentities,
        index=storage.provided.index,
        codec=codec,
        key=providers.Callable(derived_key, settings=settings, purpose="cache callers"),
        mirrors=mirror_callers,
        clock=clock,
    )
    cache_capacity: providers.Provider[CacheCapacity] = providers.Singleton(_cache_capacity, settings=settings)
    outbox: providers.Provider[RateLimitOutbox | None] = providers.Singleton(_outbox, shared=storage.provided.shared)
    allowances: providers.Provider[Allowances] = providers.Singleton(
        Allowances, allowance_table=counting.provided.allowance_table, clock=clock, outbox=outbox
    )
    back_offs: providers.Provider[BackOffs] = providers.Singleton(
        BackOffs, allowances=allowances, clock=clock, events=events, outbox=outbox
    )
    outages: providers.Provider[Outages] = providers.Singleton(Outages, back_offs=back_offs, clock=clock, events=events)
    find_troubles: providers.Provider[FindTroubles] = providers.Singleton(
        FindTroubles,
        back_offs=back_offs,
        outages=outages,
        mirror_callers=mirror_callers,
        upstreams=upstreams.provided.upstreams,
    )
    relayed_attempts: providers.Provider[LoginAttempts] = providers.Singleton(
        LoginAttempts,
        clock=clock,
        events=events,
        of_account=OF_RELAYED,
        shared=providers.Callable(
            _shared_counting, shared=storage.provided.shared, kind="upstream", background=background
        ),
    )
    relayed_logins: providers.Provider[RelayedLogins] = providers.Singleton(
        RelayedLogins,
        registry=registry,
        attempts=relayed_attempts,
        callers=caller_identities,
        outages=outages,
        key=providers.Callable(derived_key, settings=settings, purpose="relayed logins"),
    )
    grants: providers.Provider[Grants] = providers.Singleton(
        Grants, index=storage.provided.index, policy=cache_policy, clock=clock, background=background
    )
    read_permissions: providers.Provider[ReadPermissions] = providers.Singleton(
        ReadPermissions,
        registry=registry,
        grants=grants,
        index=storage.provided.index,
        outages=outages,
        back_offs=back_offs,
        background=background,
        clock=clock,
    )
    eviction: providers.Provider[Eviction] = providers.Singleton(
        Eviction,
        store=store,
        maintenance=storage.provided.maintenance,
        usage=storage.provided.usage,
        index=storage.provided.index,
        capacity=cache_capacity,
        clock=clock,
        events=events,
    )
    provenance: providers.Provider[Provenance] = providers.Singleton(
        Provenance, index=storage.provided.index, rules=access_rules, background=background
    )
    manifest_cache: providers.Provider[ManifestCache] = providers.Singleton(
        ManifestCache,
        store=store,
        eviction=eviction,
        provenance=provenance,
        events=events,
        background=background,
        shared=providers.Callable(_shared_store, shared=storage.provided.shared),
    )
    cached_tags: providers.Provider[CachedTags] = providers.Singleton(
        CachedTags, index=storage.provided.index, policy=cache_policy, clock=clock
    )
    shared_services: providers.Provider[tuple[SharedService, ...]] = providers.Callable(
        _shared_services, shared=storage.provided.shared
    )
    replicas: providers.Provider[SharesDownloads] = providers.Singleton(
        _shares_downloads, shared=storage.provided.shared, provenance=provenance, events=events
    )
    downloads: providers.Provider[RunningDownloads] = providers.Singleton(
        RunningDownloads,
        fetch=providers.Singleton(
            FetchBlob,
            store=store,
            leases=storage.provided.leases,
            registry=registry,
            permissions=read_permissions,
            eviction=eviction,
            provenance=provenance,
            events=events,
            background=background,
            replicas=replicas,
            retries=settings.provided.fill_retries,
            policy=settings.provided.download_policy,
            clock=clock,
        ),
        capacity=cache_capacity,
        clock=clock,
        events=events,
    )
    rate_limits: providers.Provider[SharedRateLimits] = providers.Singleton(
        SharedRateLimits,
        board=providers.Callable(_rate_limits, shared=storage.provided.shared),
        outbox=outbox,
        back_offs=back_offs,
        allowances=allowances,
        upstreams=upstreams.provided.upstreams,
    )
    shared_content: providers.Provider[SharedContent | None] = providers.Singleton(
        _shared_content, shared=storage.provided.shared, clock=clock, events=events
    )

    # --- requests of clients and operators ---
    refusals: providers.Provider[Refusals] = providers.Singleton(
        Refusals,
        upstream_auth=upstream_auth,
        rewriter=providers.Singleton(ChallengeRewriter, service=service),
        verifier=verifier,
        logins=relayed_logins,
    )
    authorize: providers.Provider[Authorize] = providers.Singleton(
        Authorize,
        upstreams=upstreams,
        upstream_auth=upstream_auth,
        accounts=check_login,
        verifier=verifier,
        refusals=refusals,
        rules=rules,
        logins=relayed_logins,
        identities=caller_identities,
    )
    answer_ping: providers.Provider[AnswerPing] = providers.Singleton(
        AnswerPing, authorize=authorize, refusals=refusals, registry=registry, logins=relayed_logins
    )
    listings: providers.Provider[Listings] = providers.Singleton(
        Listings, authorize=authorize, refusals=refusals, registry=registry, rules=rules
    )
    search: providers.Provider[Search] = providers.Singleton(
        Search, authorize=authorize, browse=listings, upstreams=upstreams, search=upstream_search, rules=rules
    )
    report_status: providers.Provider[ReportStatus] = providers.Singleton(ReportStatus, registry=registry, clock=clock)
    relayed: providers.Provider[RelayedTokens] = providers.Singleton(
        RelayedTokens, relay=relay, callers=caller_identities, grants=grants, outages=outages, logins=relayed_logins
    )
    grant_token: providers.Provider[GrantToken] = providers.Singleton(
        GrantToken,
        upstream_auth=upstream_auth,
        policy=policy,
        accounts=check_login,
        issuer=issuer,
        relayed=relayed,
        upstreams=upstreams,
        service=service,
    )
    mirror_caller: providers.Provider[MirrorCaller] = providers.Singleton(
        MirrorCaller,
        upstreams=upstreams,
        upstream_auth=upstream_auth,
        grant_token=grant_token,
        policy=policy,
        issuer=providers.Singleton(
            TokenIssuer, issuer=service, clock=clock, codec=codec, lifetime=_MIRROR_TOKEN_SECONDS
        ),
    )
    fetch_manifest: providers.Provider[FetchManifest] = providers.Singleton(
        FetchManifest,
        registry=registry,
        permissions=read_permissions,
        manifest_cache=manifest_cache,
        cached_tags=cached_tags,
        back_offs=back_offs,
        events=events,
        background=background,
        turns=providers.Callable(_turns, shared=storage.provided.shared),
    )
    pull_manifest: providers.Provider[PullManifest] = providers.Singleton(
        PullManifest,
        authorize=authorize,
        permissions=read_permissions,
        cached_tags=cached_tags,
        manifest_cache=manifest_cache,
        fetch=fetch_manifest,
        outages=outages,
        events=events,
    )
    passthrough: providers.Provider[Passthrough] = providers.Singleton(
        Passthrough,
        registry=registry,
        permissions=read_permissions,
        events=events,
        clock=clock,
        retries=settings.provided.fill_retries,
    )
    pull_blob: providers.Provider[PullBlob] = providers.Singleton(
        PullBlob,
        authorize=authorize,
        permissions=read_permissions,
        cached=providers.Singleton(CachedBlobs, store=store, provenance=provenance, eviction=eviction, events=events),
        downloads=downloads,
        passthrough=passthrough,
        events=events,
    )
    identify_viewer: providers.Provider[IdentifyViewer] = providers.Singleton(
        IdentifyViewer,
        logins=providers.Singleton(
            CheckLogin,
            policy=page_logins,
            attempts=attempts,
            steps=passwords,
            key=providers.Callable(secrets.token_bytes, nbytes=_KEY_BYTES),
        ),
        operators=operators,
        takes_logins=settings.provided.takes_page_logins,
    )
    visibility: providers.Provider[Visibility] = providers.Singleton(
        Visibility,
        authorize=authorize,
        identities=caller_identities,
        rules=rules,
        grants=grants,
        index=storage.provided.index,
        pins=pins,
        mirrors=mirror_callers,
    )
    list_recent_pulls: providers.Provider[ListRecentPulls] = providers.Singleton(
        ListRecentPulls, pulls=pull_log, visibility=visibility
    )
    read_history: providers.Provider[ReadHistory] = providers.Singleton(ReadHistory, history=history, clock=clock)
    list_downloads: providers.Provider[ListDownloads] = providers.Singleton(
        ListDownloads, table=activity_table, visibility=visibility
    )
    describe_upstreams: providers.Provider[DescribeUpstreams] = providers.Singleton(
        DescribeUpstreams, table=activity_table, status=report_status, allowances=allowances, clock=clock
    )
    measure_traffic: providers.Provider[MeasureTraffic] = providers.Singleton(MeasureTraffic, counts=traffic_counts)
    browse_cache: providers.Provider[BrowseCache] = providers.Singleton(
        BrowseCache,
        visibility=visibility,
        images=storage.provided.images,
        contents=providers.Singleton(
            ImageContents,
            images=storage.provided.images,
            usage=storage.provided.usage,
            upstreams=upstreams,
            manifest_cache=manifest_cache,
            provenance=provenance,
            store=store,
        ),
    )
    warm_cache: providers.Provider[WarmCache] = providers.Singleton(
        WarmCache,
        manifests=pull_manifest,
        blobs=pull_blob,
        upstreams=upstreams,
        manifest_cache=manifest_cache,
        publish=providers.Singleton(
            _publish_stored,
            shared=storage.provided.shared,
            content=store,
            eviction=eviction,
            provenance=provenance,
            events=events,
        ),
    )
    pinned_images: providers.Provider[PinnedImages] = providers.Singleton(
        PinnedImages,
        pins=pins,
        usage=storage.provided.usage,
        index=storage.provided.index,
        upstreams=upstreams,
        caller=mirror_caller,
        manifests=pull_manifest,
        warm=warm_cache,
        manifest_cache=manifest_cache,
        eviction=eviction,
        capacity=cache_capacity,
        interval=settings.provided.pin_check_interval,
        clock=clock,
        events=events,
    )
    upkeep: providers.Provider[Upkeep] = providers.Singleton(
        Upkeep,
        eviction=eviction,
        downloads=downloads,
        permissions=read_permissions,
        cached_tags=cached_tags,
        manifest_cache=manifest_cache,
        index=storage.provided.index,
        rate_limits=rate_limits,
        events=events,
        shared=providers.Callable(
            _shared_upkeep,
            shared=storage.provided.shared,
            content=shared_content,
            settings=settings,
            clock=clock,
        ),
        history=providers.Callable(
            _record_history,
            settings=settings,
            worker=counting.provided.worker,
            history=history,
            archive=storage.provided.history,
            clock=clock,
        ),
        by_upstream=providers.Callable(
            _measure_by_upstream,
            worker=counting.provided.worker,
            usage=storage.provided.usage,
            metrics=cache_by_upstream,
        ),
        pins=providers.Callable(_pins_of_worker, pinned_images=pinned_images, worker=counting.provided.worker),
    )
    manage_cache: providers.Provider[ManageCache] = providers.Singleton(
        ManageCache,
        store=store,
        maintenance=storage.provided.maintenance,
        usage=storage.provided.usage,
        index=storage.provided.index,
        eviction=eviction,
        manifest_cache=manifest_cache,
        pins=pins,
        clock=clock,
    )
    manage_shared_content: providers.Provider[ManageSharedContent | None] = providers.Singleton(
        _manage_shared_content,
        shared=storage.provided.shared,
        content=shared_content,
        local=manage_cache,
        manifest_cache=manifest_cache,
        pins=pins,
        clock=clock,
    )
    administer: providers.Provider[Administer] = providers.Singleton(
        Administer, cache=manage_cache, shared=manage_shared_content, pins=pinned_images, events=events
    )
    job_tasks: providers.Provider[BackgroundTasks] = providers.Singleton(BackgroundTasks)
    run_jobs: providers.Provider[RunJobs] = providers.Singleton(
        RunJobs,
        jobs=jobs,
        cache=manage_cache,
        warm_cache=warm_cache,
        mirror_caller=mirror_caller,
        upstreams=upstreams,
        administer=administer,
        tasks=job_tasks,
        events=events,
        clock=clock,
    )
    explain_pull: providers.Provider[ExplainPull] = providers.Singleton(
        ExplainPull,
        upstreams=upstreams,
        decide=providers.Singleton(
            DecidePull,
            upstream_auth=upstream_auth,
            policy=policy,
            rules=access_rules,
            accounts=check_login,
            logins=relayed_logins,
        ),
        describe=describe_upstreams,
        visibility=visibility,
        grants=grants,
        policy=cache_policy,
        eviction=eviction,
        mirrors=mirror_callers,
        clock=clock,
    )
    form_key: providers.Provider[bytes] = providers.Singleton(derived_key, settings=settings, purpose="page forms")


def open_upstreams(settings: Settings, worker: int, events: EventSink) -> AbstractAsyncContextManager[UpstreamClients]:
    """The clients of all upstreams for one worker. Each worker gets a share of the configured limits, so that all
    workers together keep them.
    """
    pairs = zip(settings.table.upstreams, settings.upstreams, strict=True)
    connections = {upstream: _connection_settings(one, worker, settings.workers) for upstream, one in pairs}
    proxies = ProxyRules(settings.http_proxy, settings.https_proxy, settings.no_proxy)
    return open_clients(connections, proxies, f"{NAME}/{VERSION}", events)


def _connection_settings(one: UpstreamSettings, worker: int, workers: int) -> tuple[SessionSettings, RequestLimits]:
    certificate = (one.client_cert, one.client_key) if one.client_cert and one.client_key else None
    session = SessionSettings(one.timeout, one.ca, certificate, one.proxy)
    return session, RequestLimits(one.max_connections, one.max_rate).share(worker, workers)


@asynccontextmanager
async def open_container(
    settings: Settings, counters: SharedCounters | None = None, worker: int = 0
) -> AsyncIterator[Container]:
    """The container of one worker process, with open connections and storage. Needs a running event loop.

    `counters`: shared by all workers; `worker`: the number of this worker.
    """
    counting = CountingEventSink(counters or make_counters(settings), worker)
    counting.forget_endpoints()
    events = EventFanOut([LoggingEventSink(), counting])
    async with (
        open_upstreams(settings, worker, events) as clients,
        open_storage(settings, SystemClock(), events) as storage,
        open_tracer(settings) as tracer,
    ):
        if storage.shared is None:
            counting.forget_services()  # a reload may have removed them
        container = Container(settings=settings, clients=clients, storage=storage, counting=counting, tracer=tracer)
        try:
            yield container
        finally:
            await close_container(container)


async def close_container(container: Container) -> None:
    """Stop background work. Each component stops before the components that it depends on."""
    await container.job_tasks().cancel()
    await container.report_status().close()
    await container.upstream_auth().close()
    await container.upkeep().close()
    await container.downloads().close()
    await container.replicas().close()
    await container.background().close()
    container.passwords().close()
