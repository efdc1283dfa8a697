"""UpstreamAuthCache: how each upstream authenticates callers, as its last ping answered."""

from application.concurrency import BackgroundTasks, SingleFlight
from application.ports.index import KnowledgeIndex
from application.ports.telemetry import EventSink, begin_record, current_record
from application.ports.upstream import ForwardedCredentials, UpstreamRegistry
from domain.errors import IdentityRejected, MirrorFault, RegistryError, RequestNotSent, UpstreamAuthUnknown
from domain.events import ServiceNameConflict, UpstreamAuthLearned, UpstreamFailed
from domain.ports import Clock
from domain.trust import TrustRow, UpstreamAuth, UpstreamScheme
from domain.upstreams import Upstream

_RECHECK_SECONDS = 60.0
_RETRY_SECONDS = 2.0
"""The shortest time between two probes of an upstream that does not answer, however many clients ask."""


class UpstreamAuthCache:
    """Stores only definite answers of an upstream. An error does not change what is known."""

    def __init__(
        self,
        registry: UpstreamRegistry,
        service: str,
        index: KnowledgeIndex,
        clock: Clock,
        events: EventSink,
        background: BackgroundTasks,
    ) -> None:
        self._registry = registry
        self._service = service
        self._index = index
        self._clock = clock
        self._events = events
        self._background = background
        self._known: dict[Upstream, UpstreamAuth] = {}
        self._from_resources: dict[Upstream, UpstreamAuth] = {}
        self._checked: dict[Upstream, float] = {}
        self._failed: dict[Upstream, tuple[float, RegistryError]] = {}
        """The time and the error of the last failed probe."""
        self._probes = SingleFlight()

    async def row(self, upstream: Upstream, *, of_host: bool = False) -> tuple[TrustRow, UpstreamAuth]:
        """The trust row that applies, and how the upstream authenticates. Raises UpstreamAuthUnknown if that is not
        known yet, and IdentityRejected if the row is not possible with the configured identity.

        `of_host`: the request concerns all upstreams behind the host name. If there are several, a problem with this
        one does not refuse the request.
        """
        if settled := upstream.trust.fixed_row:
            return settled, UpstreamAuth()
        try:
            await self._read_index(upstream)
            if upstream not in self._known:
                await self._first_probe(upstream)
            elif self._clock.now() - self._checked[upstream] > _RECHECK_SECONDS:
                self._checked[upstream] = self._clock.now()
                self._background.start(self._probes.do(upstream, lambda: self._probe(upstream)))
            auth = self._known[upstream]
            return upstream.trust.row_for(auth), auth
        except (UpstreamAuthUnknown, IdentityRejected):
            if not of_host or not upstream.trust.shares_host:
                raise
            return upstream.trust.row_for(UpstreamAuth()), UpstreamAuth()

    async def known_row(self, upstream: Upstream) -> TrustRow:
        """The trust row as far as it is known, without a request to the upstream. Raises UpstreamAuthUnknown and
        IdentityRejected as `row` does.
        """
        if settled := upstream.trust.fixed_row:
            return settled
        await self._read_index(upstream)
        return upstream.trust.row_for(self._known.get(upstream))

    def learn(self, upstream: Upstream, received: UpstreamAuth) -> None:
        """A resource sent this challenge. A Bearer challenge overrides a ping that asked for nothing."""
        known = self._known.get(upstream)
        if known and known.scheme is UpstreamScheme.NONE and received.bearer:
            # Without the scope and the error, which concern only that resource.
            general = received.bearer.with_parameters(scope=None, error=None)
            self._from_resources[upstream] = UpstreamAuth((general,))
            self._remember(upstream, self._from_resources[upstream])

    async def close(self) -> None:
        """Cancel the running probes."""
        await self._probes.close()

    async def _read_index(self, upstream: Upstream) -> None:
        """What was learnt before a restart: the mirror can send challenges while the upstream is unavailable."""
        if upstream not in self._known and (kept := await self._index.find_upstream_auth(upstream)) is not None:
            self._checked.setdefault(upstream, 0.0)
            self._known.setdefault(upstream, kept)

    async def _first_probe(self, upstream: Upstream) -> None:
        failed = self._failed.get(upstream)
        if failed is None or self._clock.now() - failed[0] > _RETRY_SECONDS:
            await self._probes.do(upstream, lambda: self._probe(upstream))
        if upstream not in self._known:
            error = self._failed[upstream][1]
            if isinstance(error, MirrorFault):
                raise RequestNotSent(error.message)
            raise UpstreamAuthUnknown(f"the mirror does not know yet how the upstream authenticates: {error.message}")

    async def _probe(self, upstream: Upstream) -> None:
        begin_record(
            current_record().request_id
        )  # the access log of the request that waits does not report the status of the probe
        try:
            answer = await self._registry.ping(upstream, ForwardedCredentials(), is_probe=True)
        except RegistryError as error:
            self._failed[upstream] = self._clock.now(), error
            if not isinstance(error, MirrorFault):
                self._events.emit(UpstreamFailed(upstream.url, error.message))
        else:
            pinged = UpstreamAuth(answer.challenges)
            # A ping that asks for nothing does not override the challenge of a resource.
            is_open = pinged.scheme is UpstreamScheme.NONE
            self._remember(upstream, self._from_resources.get(upstream, pinged) if is_open else pinged)
        self._checked[upstream] = self._clock.now()

    def _remember(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        known = self._known.get(upstream)
        if known == auth:
            return
        self._known[upstream] = auth
        self._background.start(self._index.keep_upstream_auth(upstream, auth))
        try:
            row = upstream.trust.row_for(auth)
        except IdentityRejected as refused:
            self._events.emit(UpstreamFailed(upstream.url, refused.message))
            return
        self._events.emit(UpstreamAuthLearned(upstream.url, row.number, row.meaning, is_change=known is not None))
        if auth.bearer and auth.bearer.get("service") == self._service:
            self._events.emit(ServiceNameConflict(upstream.url, self._service))
