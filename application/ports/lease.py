"""The port to download leases: one process downloads a blob from an upstream, and the other processes follow it."""

from typing import Protocol, runtime_checkable

from application.ports.content import OpenFile, PartialBlob
from domain.byte_ranges import Span
from domain.digest import Digest
from domain.span_set import END_UNKNOWN, SpanSet
from domain.upstreams import Upstream
from domain.value import Value

WHOLE = Span(END_UNKNOWN - 1, END_UNKNOWN)
"""A want that stands for the whole blob, whatever its length."""


class DownloadLease(Protocol):
    """The right to download one blob from one upstream. It ends with `release`, with the commit of the partial blob, or
    with the process.
    """

    @property
    def partial_blob(self) -> PartialBlob:
        """The partial blob with the bytes that this upstream has sent so far. The holder of the lease closes its
        file.
        """

    def wanted(self) -> SpanSet:
        """The bytes that readers in other processes wait for; see FollowedPartialBlob.want. Does not wait."""

    async def release(self, *, keep: bool) -> None:
        """End the lease. `keep`: the next holder continues with the partial blob; otherwise it is discarded, and the
        processes that follow it see that it is. Does nothing if the lease has already ended.
        """


class PartialBlobState(Value, frozen=True):
    """`present`: the bytes that have been written; `total`: the length of the blob, None while it is unknown;
    `is_verified`: the blob is complete and its digest is right; `is_discarded`: the download has failed, and the
    partial blob will not become content.
    """

    present: SpanSet
    total: int | None
    is_verified: bool
    is_discarded: bool


@runtime_checkable
class FollowedPartialBlob(Protocol):
    """A partial blob whose lease another process has. The process that follows it closes `file`."""

    @property
    def file(self) -> OpenFile: ...

    def look(self) -> PartialBlobState:
        """The current state. Does not wait."""

    def want(self, spans: SpanSet) -> None:
        """Tell the holder of the lease which bytes the readers in this process wait for. Replaces what was told before.
        The wants end with the file and with the process. A span may end at END_UNKNOWN. Does not wait.
        """


class DownloadLeases(Protocol):
    """Gives each lease to one process at a time."""

    async def lease(
        self, upstream: Upstream, digest: Digest, *, refetch: bool = False
    ) -> DownloadLease | FollowedPartialBlob | None:
        """The lease; or the partial blob of the process that has it; or None if the content is already stored. A
        partial blob never contains bytes of two upstreams.

        `refetch`: give a lease even if the content is stored, because this upstream must send it. The result is None
        only if the partial blob of this upstream has just become content. Raises StorageRefused.
        """
