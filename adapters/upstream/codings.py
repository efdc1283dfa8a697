"""Bodies that came coded though nobody asked for it."""

import zlib

from domain.errors import UpstreamBroken, UpstreamTooLong

_GZIP = frozenset({"gzip", "x-gzip"})  # RFC 9110 section 8.4.1.3
_WITH_GZIP_HEADER = zlib.MAX_WBITS | 16


def is_coded(coding: str | None) -> bool:
    """What a Content-Encoding field says."""
    return bool(coding) and (coding or "").strip().lower() != "identity"


def decoded(content: bytes, coding: str | None, limit: int) -> bytes:
    """The body without its coding. Raises UpstreamBroken where it is another coding than gzip or none at all, or where
    more than `limit` bytes would come out: some kilobytes may hold gigabytes.

    What is read whole is hashed or parsed afterwards, so a decoded body is as good as one that came plain.
    """
    if not is_coded(coding):
        return content
    if (coding or "").strip().lower() not in _GZIP:
        raise unasked(coding)
    machine = zlib.decompressobj(_WITH_GZIP_HEADER)
    try:
        plain = machine.decompress(content, limit + 1)
    except zlib.error as error:
        raise UpstreamBroken("the upstream sent content as gzip that is none") from error
    if len(plain) > limit:
        raise UpstreamTooLong(f"the upstream sent more than {limit} bytes where less was due")
    if not machine.eof:
        raise UpstreamBroken("the upstream broke the content off")
    return plain


def unasked(coding: str | None) -> UpstreamBroken:
    """The refusal of a coding that cannot be undone."""
    return UpstreamBroken(f"the upstream sent content coded with {(coding or '')[:32]!r}, which nobody asked for")
