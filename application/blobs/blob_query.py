"""The query for a blob, and its answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Self

from application.access.read_permission import ReadPermission
from application.ports.content import ContentPart
from application.ports.upstream import ResponseMetadata
from domain.content import BLOB_MEDIA_TYPE, ByteRange, Span, leading_range, spans_of
from domain.digest import Bytes, Digest
from domain.names import RepositoryName
from domain.upstream_table import NO_HINT, RegistryHint

Piece = Bytes | ContentPart
"""Bytes of a body, in memory or in a file that the kernel can send from."""


@dataclass(frozen=True)
class BlobQuery:
    """The requested blob and the requested part of it: `byte_range` for one range, `byte_ranges` for several, never
    both. `known`: the client has this digest (If-None-Match).
    """

    name: RepositoryName
    digest: Digest
    head: bool = False
    byte_range: ByteRange | None = None
    known: bool = False
    hint: RegistryHint = NO_HINT
    byte_ranges: tuple[ByteRange, ...] = ()

    @property
    def is_partial(self) -> bool:
        return self.byte_range is not None or bool(self.byte_ranges)

    @property
    def first_range(self) -> ByteRange | None:
        """The range of the first request to the upstream; None if that request is for the whole blob."""
        return leading_range(self.byte_ranges) if self.byte_ranges else self.byte_range

    def spans(self, size: int) -> tuple[Span, ...]:
        """The bytes to send of content of `size` bytes; empty if the whole content is to be sent.

        Several ranges that are longer in total than the content must overlap. Such a small request would cost more than
        the whole content, so the whole content is sent (RFC 9110 section 14.2). Raises RangeUnsatisfiable.
        """
        if self.byte_range:
            return (self.byte_range.of(size),)
        spans = spans_of(self.byte_ranges, size) if self.byte_ranges else ()
        return () if sum(span.length for span in spans) > size else spans


@dataclass(frozen=True)
class BlobAnswer:
    """A blob that is ready to be read. `size`: bytes of the whole blob; None if the upstream does not state it.

    `span` is set if one part is sent. `spans` is set if several parts are sent: then `pieces` has the bytes of the
    spans one after the other, and `size` is known. `pieces` is None if the answer has no body. `damaged` is called when
    a file turns out to be shorter than expected.
    """

    digest: Digest
    media_type: str
    size: int | None
    span: Span | None = None
    pieces: AsyncIterator[Piece] | None = None
    warnings: tuple[str, ...] = ()
    damaged: Callable[[], Awaitable[None]] | None = None
    spans: tuple[Span, ...] = ()

    @property
    def length(self) -> int:
        """The bytes that are sent; 0 if the upstream does not state the size."""
        if self.spans:
            return sum(span.length for span in self.spans)
        return self.span.length if self.span else self.size or 0

    def in_part(self, spans: tuple[Span, ...]) -> Self:
        """The same answer with only these parts of the blob; unchanged if `spans` is empty."""
        if len(spans) > 1:
            return replace(self, spans=spans)
        return replace(self, span=spans[0]) if spans else self


def described(digest: Digest, metadata: ResponseMetadata) -> BlobAnswer:
    """The answer with the metadata of an upstream response."""
    size = metadata.size if metadata.span is None else metadata.whole_size
    return BlobAnswer(digest, metadata.media_type or BLOB_MEDIA_TYPE, size, warnings=metadata.warnings)


def linked(permission: ReadPermission) -> BlobAnswer:
    """The answer with the metadata from the link of the permission."""
    link = permission.link
    return BlobAnswer(link.location.digest, link.media_type, link.size, warnings=permission.warnings)
