"""Which bytes of a partial blob other processes wait for: locks on these bytes of its file.

They are Linux open file description locks (fcntl(2)), so the kernel removes them with the descriptor and with the
process. On a local file system they are independent of the flock(2) lock that is the lease.
"""

import fcntl
import os
import struct
from contextlib import suppress

from application.ports.lease import WHOLE
from domain.byte_ranges import Span
from domain.span_set import END_UNKNOWN, SpanSet

_LOCK = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length (0: to the end of all files), process (0 in a request)."""
_QUERIES_LIMIT = 64
"""Each lock of another process takes one query, and the gaps between them as many."""


def announce(descriptor: int, spans: SpanSet) -> None:
    """Lock these bytes of the file, shared, and no others. Does nothing if the file system has no such locks: the
    process that has the lease then downloads the blob in order.
    """
    with suppress(OSError):
        for span in spans:
            _lock(descriptor, fcntl.F_RDLCK, span)
        for gap in spans.missing(Span(0, END_UNKNOWN)):
            _lock(descriptor, fcntl.F_UNLCK, gap)


def announced(descriptor: int) -> SpanSet:
    """The bytes that other processes have locked."""
    found = SpanSet()
    # The kernel returns any of several locks, not the first one. So the bytes on both sides of it are asked for.
    unknown = [Span(0, WHOLE.start), WHOLE]
    with suppress(OSError):
        for _ in range(_QUERIES_LIMIT):
            if not unknown:
                break
            asked = unknown.pop()
            if locked := _locked_in(descriptor, asked):
                found = found.plus(locked)
                unknown += [
                    gap for gap in (Span(locked.stop, asked.stop), Span(asked.start, locked.start)) if gap.length > 0
                ]
    return found


def _lock(descriptor: int, kind: int, span: Span) -> None:
    length = 0 if span.stop >= END_UNKNOWN else span.length
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, span.start, length, 0))


def _locked_in(descriptor: int, span: Span) -> Span | None:
    """A part of the span that other open files have locked; None if there is none. Raises OSError."""
    length = 0 if span.stop >= END_UNKNOWN else span.length
    query = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, span.start, length, 0)
    kind, _, start, length, _ = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, query))
    if kind == fcntl.F_UNLCK:
        return None
    return Span(max(start, span.start), min(start + length if length else END_UNKNOWN, span.stop))
