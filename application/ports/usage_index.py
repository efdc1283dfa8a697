"""The port to how much room content takes and when it was last used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from domain.digest import Digest


@dataclass(frozen=True)
class Used:
    """One piece of content. `size` in bytes, `used_at` in seconds since 1970."""

    digest: Digest
    size: int
    used_at: float


class UsageIndex(Protocol):
    """What is stored, by digest; kept across restarts and shared by all workers."""

    async def keep(self, entries: list[Used]) -> None:
        """Adds what is new and replaces what is known."""
        ...

    async def touch(self, times: Mapping[Digest, float]) -> None:
        """Content that was used, and when; what is not known stays unknown."""
        ...

    async def forget(self, digests: list[Digest]) -> None: ...

    async def all(self) -> list[Used]:
        """Least recently used first."""
        ...


class UsageTotal(Protocol):
    """Asked much more often than the whole list."""

    async def total(self) -> int:
        """Bytes of all that is stored."""
        ...
