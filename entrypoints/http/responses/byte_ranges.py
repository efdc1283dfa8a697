"""Byte ranges of a blob: Content-Range for one, multipart/byteranges for several (RFC 9110 section 14.6)."""

import secrets
from collections.abc import AsyncIterator, Sequence

from application.blobs.blob_query import BlobAnswer, Piece
from application.ports.content import ContentPart
from domain.byte_ranges import Span


def content_range(span: Span, size: int | None) -> str:
    """The value of Content-Range (RFC 9110 section 14.4). `size` is that of the whole content."""
    return f"bytes {span.start}-{span.stop - 1}/{'*' if size is None else size}"


def multipart_body(blob: BlobAnswer, pieces: AsyncIterator[Piece]) -> tuple[str, int, AsyncIterator[Piece]]:
    """The media type, the length and the pieces of the body that carries several ranges of the blob."""
    boundary = secrets.token_hex(16)  # unpredictable, so that no content can contain it on purpose
    kind, size = blob.media_type, blob.size
    parts = [
        (
            f"\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {content_range(span, size)}\r\n\r\n".encode(),
            span.length,
        )
        for span in blob.spans
    ]
    end = f"\r\n--{boundary}--\r\n".encode()
    total = sum(len(head) + length for head, length in parts) + len(end)
    return f"multipart/byteranges; boundary={boundary}", total, _multipart(pieces, parts, end)


async def _multipart(
    pieces: AsyncIterator[Piece], parts: Sequence[tuple[bytes, int]], end: bytes
) -> AsyncIterator[Piece]:
    """Put each part head in front of the bytes of its part; `pieces` has the bytes of one part after the other. The
    first head is sent together with the first bytes of content: until then, an error can become an error response.
    """
    piece: Piece = b""
    for head, length in parts:
        missing = length
        while missing:
            piece = piece if _size(piece) else await anext(pieces)
            if missing == length:
                yield head
            part, piece = _split(piece, missing)
            missing -= _size(part)
            yield part
    yield end


def _size(piece: Piece) -> int:
    return piece.length if isinstance(piece, ContentPart) else len(piece)


def _split(piece: Piece, size: int) -> tuple[Piece, Piece]:
    """The first `size` bytes, or fewer if the piece is shorter, and the rest."""
    if isinstance(piece, ContentPart):
        middle = min(piece.start + size, piece.stop)
        return (
            ContentPart(piece.file, piece.start, middle),
            ContentPart(piece.file, middle, piece.stop),
        )
    return piece[:size], piece[size:]
