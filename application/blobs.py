"""What is asked of blobs, and what is answered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from application.ports.content_store import FilePart
from application.ports.upstream_registry import Facts
from domain.content import BLOB_MEDIA_TYPE, ByteRange, Span
from domain.digest import Bytes, Digest
from domain.names import RepositoryName
from domain.records import Link
from domain.upstreams import NO_NAMING, Naming

Piece = Bytes | FilePart
"""Bytes of a body in memory, or still in a file, where the kernel can take them from."""


@dataclass(frozen=True)
class BlobQuery:
    """Which blob, and which part of it. `known`: the client has this very digest already (If-None-Match)."""

    name: RepositoryName
    digest: Digest
    head: bool = False
    byte_range: ByteRange | None = None
    known: bool = False
    naming: Naming = NO_NAMING


@dataclass(frozen=True)
class BlobAnswer:
    """A blob about to be read. `size` is the whole blob's, None where the upstream does not say.

    `span` is set where only a part is sent. `pieces` is None where no body belongs to the answer. `damaged` is to be
    called by who finds that a file is shorter than was said.
    """

    digest: Digest
    media_type: str
    size: int | None
    span: Span | None = None
    pieces: AsyncIterator[Piece] | None = None
    warnings: tuple[str, ...] = ()
    damaged: Callable[[], Awaitable[None]] | None = None


def described(digest: Digest, facts: Facts) -> BlobAnswer:
    """By what an upstream's answer says."""
    size = facts.size if facts.span is None else facts.whole_size
    return BlobAnswer(digest, facts.media_type or BLOB_MEDIA_TYPE, size, warnings=facts.warnings)


def linked(link: Link, warnings: tuple[str, ...] = ()) -> BlobAnswer:
    """By what is known of it here."""
    return BlobAnswer(link.item.digest, link.media_type, link.size, warnings=warnings)
