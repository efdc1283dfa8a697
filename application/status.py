"""ReportStatus: reports whether an upstream is reachable. Load balancers ask far more often than it changes."""

from application.concurrency import SingleFlight
from application.ports.upstream import ForwardedCredentials, UpstreamRegistry
from domain.errors import RegistryError
from domain.ports import Clock
from domain.upstreams import Upstream
from domain.value import Value

_KEEP_SECONDS = 5.0


class UpstreamStatus(Value, frozen=True):
    """`checked_at`: seconds since 1970. `reason`: why the upstream is not reachable."""

    url: str
    reachable: bool
    checked_at: float
    reason: str | None = None


class ReportStatus:
    """Asks each upstream at most once in five seconds, however many requests arrive."""

    def __init__(self, registry: UpstreamRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._last: dict[Upstream, UpstreamStatus] = {}
        self._checks = SingleFlight()

    def last(self, upstream: Upstream) -> UpstreamStatus | None:
        """The last known status, without a check; None if there was no check yet."""
        return self._last.get(upstream)

    async def __call__(self, upstream: Upstream) -> UpstreamStatus:
        """The status of the upstream. An upstream that answers with a refusal is reachable."""
        last = self._last.get(upstream)
        if last is not None and self._clock.now() - last.checked_at <= _KEEP_SECONDS:
            return last
        return await self._checks.do(upstream, lambda: self._check(upstream))

    async def close(self) -> None:
        """Cancel the running checks."""
        await self._checks.close()

    async def _check(self, upstream: Upstream) -> UpstreamStatus:
        reason = None
        try:
            await self._registry.ping(upstream, ForwardedCredentials(), is_probe=True)
        except RegistryError as error:
            reason = error.message
        status = UpstreamStatus(upstream.url, reason is None, self._clock.now(), reason)
        self._last[upstream] = status
        return status
