"""What is asked of blobs, and what is answered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Self

from application.ports.content import ContentPart
from application.ports.upstream import ResponseMetadata
from domain.content import BLOB_MEDIA_TYPE, ByteRange, Span, leading_range, spans_of
from domain.digest import Bytes, Digest
from domain.names import RepositoryName
from domain.records import Link
from domain.upstreams import NO_HINT, RegistryHint

Piece = Bytes | ContentPart
"""Bytes of a body in memory, or still in a file, where the kernel can take them from."""


@dataclass(frozen=True)
class BlobQuery:
    """Which blob, and which part of it: one range, or several in `byte_ranges`; never both. `known`: the client has
    this very digest already (If-None-Match).
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
        """The range of the first request upstream; None where that is for the whole."""
        return leading_range(self.byte_ranges) if self.byte_ranges else self.byte_range

    def spans(self, size: int) -> tuple[Span, ...]:
        """The bytes to send of content of `size` bytes; none where the whole is to be sent.

        Several ranges that together are longer than the content overlap: they would make a small request cost more than
        the whole, so the whole is sent (RFC 9110 section 14.2). Raises RangeUnsatisfiable.
        """
        if self.byte_range:
            return (self.byte_range.of(size),)
        spans = spans_of(self.byte_ranges, size) if self.byte_ranges else ()
        return () if sum(span.length for span in spans) > size else spans


@dataclass(frozen=True)
class BlobAnswer:
    """A blob about to be read. `size` is the whole blob's, None where the upstream does not say.

    `span` is set where only one part is sent, `spans` where several are: then `pieces` holds the bytes of one span
    after another, and `size` is known. `pieces` is None where no body belongs to the answer. `damaged` is called when a
    file turns out to be shorter than was said.
    """

    digest: Digest
    media_type: str
    size: int | None
    span: Span | None = None
    pieces: AsyncIterator[Piece] | None = None
    warnings: tuple[str, ...] = ()
    damaged: Callable[[], Awaitable[None]] | None = None
    spans: tuple[Span, ...] = ()

    def in_part(self, spans: tuple[Span, ...]) -> Self:
        """The same answer with only these parts of the blob; the whole for none."""
        if len(spans) > 1:
            return replace(self, spans=spans)
        return replace(self, span=spans[0]) if spans else self


def described(digest: Digest, metadata: ResponseMetadata) -> BlobAnswer:
    """By what an upstream's answer says."""
    size = metadata.size if metadata.span is None else metadata.whole_size
    return BlobAnswer(digest, metadata.media_type or BLOB_MEDIA_TYPE, size, warnings=metadata.warnings)


def linked(link: Link, warnings: tuple[str, ...] = ()) -> BlobAnswer:
    """By what is known of it here."""
    return BlobAnswer(link.item.digest, link.media_type, link.size, warnings=warnings)
