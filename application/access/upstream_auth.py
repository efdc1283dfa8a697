"""Remembers how each upstream wants callers to authenticate."""

import asyncio
from contextvars import Context
from dataclasses import dataclass

from application.concurrency import BackgroundTasks
from application.ports.index import KnowledgeIndex
from application.ports.telemetry import EventSink
from application.ports.upstream import ForwardedCredentials, UpstreamRegistry
from domain.errors import IdentityRejected, MirrorFault, RegistryError, RequestNotSent, UpstreamAuthUnknown
from domain.events import ServiceNameConflict, UpstreamAuthLearned, UpstreamFailed
from domain.ports import Clock
from domain.trust import TrustRow, UpstreamAuth, UpstreamScheme
from domain.upstreams import Upstream

_RECHECK_SECONDS = 60.0
# While an upstream is gone, one probe in this time answers for every client that waits.
_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class _Failure:
    at: float
    message: str
    is_ours: bool = False
    """The upstream was not asked at all."""


class UpstreamAuthCache:
    """Only a definite answer of the upstream is remembered; an error never changes what is known."""

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
        self._failed: dict[Upstream, _Failure] = {}
        self._probes: dict[Upstream, asyncio.Task[None]] = {}

    async def row(self, upstream: Upstream, *, of_host: bool = False) -> tuple[TrustRow, UpstreamAuth]:
        """The trust row that applies, and the stance behind it. Raises UpstreamAuthUnknown while unknown.

        `of_host`: what is asked is no business of this upstream alone, where it shares a host name with others. What
        is not known of it, or wrong with it, is then no reason to refuse.
        """
        try:
            return await self._row(upstream)
        except (UpstreamAuthUnknown, IdentityRejected):
            if not of_host or not upstream.trust.shares_host:
                raise
            return upstream.trust.row_for(UpstreamAuth()), UpstreamAuth()

    async def _row(self, upstream: Upstream) -> tuple[TrustRow, UpstreamAuth]:
        if settled := upstream.trust.fixed_row:
            return settled, UpstreamAuth()
        if upstream not in self._known:
            await self._recall(upstream)
        if upstream not in self._known:
            await self._first_probe(upstream)
        elif self._clock.now() - self._checked[upstream] > _RECHECK_SECONDS:
            self._begin_probe(upstream)
        auth = self._known[upstream]
        return upstream.trust.row_for(auth), auth

    def learn(self, upstream: Upstream, received: UpstreamAuth) -> None:
        """A Bearer challenge on a resource overrides a ping that asked for nothing."""
        known = self._known.get(upstream)
        if known and known.scheme is UpstreamScheme.NONE and received.bearer:
            # The scope is that one resource's; what is remembered is for all.
            general = received.bearer.with_parameters(scope=None, error=None)
            self._from_resources[upstream] = UpstreamAuth((general,))
            self._remember(upstream, self._from_resources[upstream])

    async def close(self) -> None:
        """End the probes that are under way."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    async def _recall(self, upstream: Upstream) -> None:
        """What an earlier start learnt: so a mirror whose upstream is gone knows how to challenge. Rechecked soon."""
        kept = await self._index.find_upstream_auth(upstream)
        if kept is not None and upstream not in self._known:
            self._known[upstream] = kept
            self._checked[upstream] = 0.0

    async def _first_probe(self, upstream: Upstream) -> None:
        failure = self._failed.get(upstream)
        if failure is None or self._clock.now() - failure.at > _RETRY_SECONDS:
            # Shielded: the client that waits may leave, the others still want the answer.
            self._begin_probe(upstream)
            await asyncio.shield(self._probes[upstream])
        if upstream not in self._known:
            failure = self._failed[upstream]
            if failure.is_ours:
                raise RequestNotSent(failure.message)
            raise UpstreamAuthUnknown(f"the mirror does not know yet how the upstream authenticates: {failure.message}")

    def _begin_probe(self, upstream: Upstream) -> None:
        if upstream not in self._probes:
            probe = asyncio.create_task(self._ask(upstream), context=Context())
            self._probes[upstream] = probe
            probe.add_done_callback(lambda _: self._probes.pop(upstream, None))

    async def _ask(self, upstream: Upstream) -> None:
        try:
            answer = await self._registry.ping(upstream, ForwardedCredentials(), is_probe=True)
        except MirrorFault as fault:
            self._failed[upstream] = _Failure(self._clock.now(), fault.message, is_ours=True)
        except RegistryError as error:
            self._failed[upstream] = _Failure(self._clock.now(), error.message)
            self._events.emit(UpstreamFailed(upstream.url, error.message))
        else:
            pinged = UpstreamAuth(answer.challenges)
            # A ping that still asks for nothing does not unsay what a resource has said.
            open_still = pinged.scheme is UpstreamScheme.NONE
            self._remember(upstream, self._from_resources.get(upstream, pinged) if open_still else pinged)
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
