"""The port to the right to download: of all processes, one downloads a blob from an upstream, and the others follow."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from application.ports.content import OpenFile, PartialBlob
from domain.digest import Digest
from domain.upstreams import Upstream


class DownloadLease(Protocol):
    """The right to download one blob from one upstream. It ends with `release`, with the commit of the partial blob, or
    with the process.
    """

    @property
    def partial_blob(self) -> PartialBlob:
        """With the bytes that this upstream has sent so far. The holder of the lease closes its file."""
        ...

    async def release(self, *, keep: bool) -> None:
        """`keep`: the next holder continues with the partial blob; otherwise it is discarded, and processes that
        follow it notice this. Does nothing if the lease has ended.
        """
        ...


@dataclass(frozen=True)
class PartialBlobState:
    """`size` in bytes so far; `is_verified`: it is whole and right; `is_discarded`: it will never be."""

    size: int
    is_verified: bool
    is_discarded: bool


@runtime_checkable
class FollowedPartialBlob(Protocol):
    """A partial blob for which another process has the lease. The process that follows it closes `file`."""

    @property
    def file(self) -> OpenFile: ...

    def look(self) -> PartialBlobState:
        """The state now. Does not wait."""
        ...


class DownloadLeases(Protocol):
    """Gives each lease to one process at a time."""

    async def lease(
        self, upstream: Upstream, digest: Digest, *, refetch: bool = False
    ) -> DownloadLease | FollowedPartialBlob | None:
        """The lease; or the partial blob of the process that has it; None where the content is whole by now. Bytes of
        two upstreams are never in one partial blob. `refetch`: the upstream must send the content although it is stored
        here, unless the partial blob of this upstream has just become whole. Raises StorageRefused.
        """
        ...
