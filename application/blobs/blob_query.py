"""The query for a blob, and its answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from application.access.read_permission import ReadPermission
from application.ports.content import ContentPart
from application.ports.upstream import ResponseMetadata
from domain.byte_ranges import ByteRange, Span, leading_range, spans_of
from domain.digest import Bytes, Digest
from domain.manifests import BLOB_MEDIA_TYPE
from domain.names import RepositoryName
from domain.upstream_table import NO_HINT, RegistryHint

Piece = Bytes | ContentPart
"""Bytes of a body, in memory or in a file that the kernel can send from."""


@dataclass(frozen=True)
class BlobQuery:
    """The requested blob. `ranges`: the requested parts of it; empty for the whole blob. `known`: the client has this
    digest (If-None-Match).
    """

    name: RepositoryName
    digest: Digest
    head: bool = False
    ranges: tuple[ByteRange, ...] = ()
    known: bool = False
    hint: RegistryHint = NO_HINT

    @property
    def first_range(self) -> ByteRange | None:
        """The range of the first request to the upstream; None if that request is for the whole blob."""
        return leading_range(self.ranges) if self.ranges else None

    def spans(self, size: int) -> tuple[Span, ...]:
        """The bytes to send of content of `size` bytes; empty if the whole content is to be sent.

        Several ranges that are longer in total than the content must overlap. Such a small request would cost more than
        the whole content, so the whole content is sent (RFC 9110 section 14.2). Raises RangeUnsatisfiable.
        """
        if len(self.ranges) == 1:
            return (self.ranges[0].of(size),)
        spans = spans_of(self.ranges, size) if self.ranges else ()
        return () if sum(span.length for span in spans) > size else spans


@dataclass(frozen=True)
class BlobAnswer:
    """A blob that is ready to be read. `size`: bytes of the whole blob; None if the upstream does not state it.

    `spans`: the parts that are sent; empty if the whole blob is sent. `pieces` has the bytes of the spans one after the
    other; None if the answer has no body. With several spans, `size` is known. `damaged` is called when a file turns
    out to be shorter than expected.
    """

    digest: Digest
    media_type: str
    size: int | None
    spans: tuple[Span, ...] = ()
    pieces: AsyncIterator[Piece] | None = None
    warnings: tuple[str, ...] = ()
    damaged: Callable[[], Awaitable[None]] | None = None

    @property
    def length(self) -> int | None:
        """The bytes of the blob that are sent; None if the upstream does not state it."""
        return sum(span.length for span in self.spans) if self.spans else self.size


def described(digest: Digest, metadata: ResponseMetadata) -> BlobAnswer:
    """The answer with the metadata of an upstream response."""
    size = metadata.size if metadata.span is None else metadata.whole_size
    return BlobAnswer(digest, metadata.media_type or BLOB_MEDIA_TYPE, size, warnings=metadata.warnings)


def linked(permission: ReadPermission) -> BlobAnswer:
    """The answer with the metadata from the link of the permission."""
    link = permission.link
    return BlobAnswer(link.location.digest, link.media_type, link.size, warnings=permission.warnings)
