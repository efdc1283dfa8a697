"""Who plays which part in production. The only place that names adapters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dependency_injector import containers, providers

from adapters.accounts.fixed import FixedAccountDirectory
from adapters.clock import SystemClock
from adapters.public_suffixes import BundledPublicSuffixes
from adapters.telemetry import LoggingEventSink
from adapters.tokens.jws import JwsTokenCodec
from adapters.upstream.http_client import HttpClient
from adapters.upstream.proxies import ProxyRules
from adapters.upstream.registry import HttpUpstreamRegistry
from adapters.upstream.search import HttpUpstreamSearch
from adapters.upstream.session import SessionSettings, open_session
from adapters.upstream.session_logins import SessionLogins
from adapters.upstream.token_relay import HttpTokenRelay
from application.answer_ping import AnswerPing
from application.authorize_pull import AuthorizePull
from application.browse import Browse
from application.grant_token import GrantToken
from application.ports.event_sink import EventSink
from application.ports.token_relay import TokenRelay
from application.ports.upstream_registry import Passed, Session, UpstreamRegistry, UpstreamRight
from application.ports.upstream_search import UpstreamSearch
from application.pull_blob import PullBlob
from application.pull_manifest import PullManifest
from application.refusals import Refusals
from application.report_status import ReportStatus
from application.search import Search
from application.upstream_stances import UpstreamStances
from domain.account_policy import AccountPolicy
from domain.challenge_rewriter import ChallengeRewriter
from domain.ports import AccountDirectory, Clock, PublicSuffixes, TokenCodec
from domain.realm_policy import RealmPolicy
from domain.token_issuer import TokenIssuer
from domain.token_verifier import TokenVerifier
from domain.trust import UpstreamIdentity
from domain.upstreams import Upstream, UpstreamTable
from entrypoints.setting_values import origin_of_address
from entrypoints.settings import Settings
from entrypoints.version import NAME, VERSION


def _upstream(settings: Settings) -> Upstream:
    url = settings.upstream_registry.removesuffix("/v2")
    return Upstream.at(url, origin_of_address(url), settings.search_upstream)


def _identity(settings: Settings) -> UpstreamRight:
    """The right with which the mirror itself goes upstream; with `client`, it has none of its own."""
    if settings.upstream_identity is UpstreamIdentity.CLIENT:
        return Passed()
    return Session(settings.upstream_credentials)


def _proxies(settings: Settings) -> ProxyRules:
    return ProxyRules(settings.http_proxy, settings.https_proxy, settings.no_proxy)


def _secret(settings: Settings) -> bytes:
    return settings.server_secret.get_secret_value().encode()


class Container(containers.DeclarativeContainer):
    """Each provider is annotated with its port, so that the type checker proves that the part can be played.

    `session` is a dependency and no resource: an asynchronous resource would turn every provider above it
    into a future.
    """

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    session: providers.Dependency[object] = providers.Dependency()

    service: providers.Provider[str] = settings.provided.self_auth_service
    identity: providers.Provider[UpstreamRight] = providers.Singleton(_identity, settings)
    upstream: providers.Provider[Upstream] = providers.Singleton(_upstream, settings)
    upstreams: providers.Provider[UpstreamTable] = providers.Singleton(UpstreamTable, upstream)

    clock: providers.Provider[Clock] = providers.Singleton(SystemClock)
    events: providers.Provider[EventSink] = providers.Singleton(LoggingEventSink)
    codec: providers.Provider[TokenCodec] = providers.Singleton(JwsTokenCodec, providers.Callable(_secret, settings))
    accounts: providers.Provider[AccountDirectory] = providers.Singleton(
        FixedAccountDirectory, settings.provided.accounts
    )
    suffixes: providers.Provider[PublicSuffixes] = providers.Singleton(BundledPublicSuffixes)

    rewriter: providers.Provider[ChallengeRewriter] = providers.Singleton(ChallengeRewriter, service)
    policy: providers.Provider[AccountPolicy] = providers.Singleton(AccountPolicy, accounts)
    issuer: providers.Provider[TokenIssuer] = providers.Singleton(
        TokenIssuer, service, clock, codec, settings.provided.token_ttl
    )
    verifier: providers.Provider[TokenVerifier] = providers.Singleton(TokenVerifier, service, clock, codec)
    realms: providers.Provider[RealmPolicy] = providers.Singleton(
        RealmPolicy, suffixes, settings.provided.upstream_realms
    )

    http: providers.Provider[HttpClient] = providers.Singleton(
        HttpClient, session, providers.Callable(_proxies, settings), f"{NAME}/{VERSION}"
    )
    relay: providers.Provider[TokenRelay] = providers.Singleton(HttpTokenRelay, http, realms, clock)
    logins: providers.Provider[SessionLogins] = providers.Singleton(SessionLogins, relay, clock)
    registry: providers.Provider[UpstreamRegistry] = providers.Singleton(HttpUpstreamRegistry, http, logins)
    upstream_search: providers.Provider[UpstreamSearch] = providers.Singleton(HttpUpstreamSearch, http)

    stances: providers.Provider[UpstreamStances] = providers.Singleton(
        UpstreamStances, registry, settings.provided.trust, service, clock, events
    )
    refusals: providers.Provider[Refusals] = providers.Singleton(Refusals, stances, rewriter, identity)
    authorize: providers.Provider[AuthorizePull] = providers.Singleton(
        AuthorizePull, stances, policy, verifier, refusals, identity
    )
    answer_ping: providers.Provider[AnswerPing] = providers.Singleton(AnswerPing, authorize, refusals, registry)
    grant_token: providers.Provider[GrantToken] = providers.Singleton(
        GrantToken, stances, policy, issuer, relay, upstreams, service
    )
    pull_manifest: providers.Provider[PullManifest] = providers.Singleton(
        PullManifest, authorize, refusals, upstreams, registry, events
    )
    pull_blob: providers.Provider[PullBlob] = providers.Singleton(
        PullBlob, authorize, refusals, upstreams, registry, events
    )
    browse: providers.Provider[Browse] = providers.Singleton(Browse, authorize, refusals, upstreams, registry)
    search: providers.Provider[Search] = providers.Singleton(Search, authorize, browse, upstream_search)
    report_status: providers.Provider[ReportStatus] = providers.Singleton(ReportStatus, registry, clock)


@asynccontextmanager
async def open_container(settings: Settings) -> AsyncIterator[Container]:
    """The parts, put together and running; one for each worker process. Needs a running event loop."""
    session = open_session(SessionSettings(settings.upstream_timeout, settings.upstream_ca))
    container = Container(settings=settings, session=session)
    try:
        yield container
    finally:
        await container.report_status().close()
        await container.stances().close()
        await session.close()
