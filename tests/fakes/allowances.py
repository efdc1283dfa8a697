"""A table of allowances in memory that several workers share."""

from domain.allowance import Allowance
from domain.upstreams import Upstream


class MemoryAllowanceTable:
    """Implements AllowanceTable. Workers with the same `lines` see each other's allowances."""

    def __init__(self, lines: list[tuple[str, Allowance]] | None = None) -> None:
        self._lines = [] if lines is None else lines

    def publish(self, upstream: Upstream, allowance: Allowance) -> None:
        self._lines.append((upstream.url, allowance))

    def newest(self, upstream: Upstream) -> Allowance | None:
        known = [allowance for url, allowance in self._lines if url == upstream.url]
        return max(known, key=lambda one: one.seen_at, default=None)
