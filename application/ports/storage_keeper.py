"""The port to the upkeep of the storage as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from domain.digest import Digest


@dataclass(frozen=True)
class Space:
    """`drafts`: bytes in drafts; `free`: bytes that the file system still has, as far as we may use them; `total`:
    its size in bytes; `drafts_of`: bytes in the drafts of each upstream, by its fingerprint.
    """

    partial_blobs: int
    free: int
    total: int
    partial_blobs_of: Mapping[str, int] = field(default_factory=dict)


class StorageMaintenance(Protocol):
    """Looks at what really lies there, whatever the index says."""

    async def space(self) -> Space: ...

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        """Remove the drafts that nobody fills, and nobody has written to for so many seconds; how many there were."""
        ...

    async def contents(self) -> dict[Digest, int]:
        """The digest and the size in bytes of all content."""
        ...
