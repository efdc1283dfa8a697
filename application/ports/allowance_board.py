"""The port to where workers show each other what is left of an upstream's allowance."""

from typing import Protocol

from domain.allowance import Allowance
from domain.upstreams import Upstream


class AllowanceTable(Protocol):
    """What operators may see: of the mirror's own login, or of nobody in particular, never of a caller."""

    def show(self, upstream: Upstream, allowance: Allowance) -> None:
        """The upstream said so to this worker."""
        ...

    def shown(self, upstream: Upstream) -> Allowance | None:
        """The newest that any worker has shown; None where the upstream never spoke of it."""
        ...
