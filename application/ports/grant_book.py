"""The port to who was let in where."""

from typing import Protocol

from domain.records import CallerId, Grant
from domain.upstreams import Source


class GrantStore(Protocol):
    """Grants, kept across restarts and shared by all workers."""

    async def find(self, caller: CallerId, source: Source) -> Grant | None:
        """The last grant, ended or not."""
        ...

    async def keep(self, grant: Grant, until: float) -> None:
        """Replaces the caller's grant for the source. After `until` (seconds since 1970) it may be thrown away."""
        ...

    async def forget(self, caller: CallerId, source: Source) -> None:
        """Nothing happens where there is none."""
        ...
