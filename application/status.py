"""ReportStatus: reports whether an upstream is reachable. Load balancers ask far more often than it changes."""

import asyncio
from dataclasses import dataclass

from application.ports.upstream import ForwardedCredentials, UpstreamRegistry
from domain.errors import RegistryError
from domain.ports import Clock
from domain.upstreams import Upstream

_KEEP_SECONDS = 5.0


@dataclass(frozen=True)
class UpstreamStatus:
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
        self._checks: dict[Upstream, asyncio.Task[UpstreamStatus]] = {}

    async def __call__(self, upstream: Upstream) -> UpstreamStatus:
        """The status of the upstream. An upstream that answers with a refusal is reachable."""
        last = self._last.get(upstream)
        if last is not None and self._clock.now() - last.checked_at <= _KEEP_SECONDS:
            return last
        if upstream not in self._checks:
            check = asyncio.create_task(self._check(upstream))
            self._checks[upstream] = check
            check.add_done_callback(lambda _: self._checks.pop(upstream, None))
        # Shielded: a client may disconnect before the upstream answers, and the next client uses the result.
        return await asyncio.shield(self._checks[upstream])

    async def close(self) -> None:
        """Cancel the running checks."""
        checks = list(self._checks.values())
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    async def _check(self, upstream: Upstream) -> UpstreamStatus:
        status = await self._ask(upstream)
        self._last[upstream] = status
        return status

    async def _ask(self, upstream: Upstream) -> UpstreamStatus:
        try:
            await self._registry.ping(upstream, ForwardedCredentials(), is_probe=True)
        except RegistryError as error:
            return UpstreamStatus(upstream.url, reachable=False, checked_at=self._clock.now(), reason=error.message)
        return UpstreamStatus(upstream.url, reachable=True, checked_at=self._clock.now())
