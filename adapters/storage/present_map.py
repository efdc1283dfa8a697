"""Which bytes of a partial blob are present: a map after the end of the blob, in the same file.

A partial blob without gaps needs no map: the bytes up to the end of the file are present. Before the first gap, the
file is marked in its mode and gets a map, which begins at the length of the blob. The map is in the same file, so that
it is removed and locked together with the bytes.

The map has two slots, which are written in turn. A process that is killed while it writes one leaves the other. A slot
is recorded after its bytes were written, so the map never contains a byte that is not in the file.
"""

import os
import stat
import struct
import zlib

from domain.byte_ranges import Span
from domain.span_set import SpanSet
from domain.value import Value

_SLOT_BYTES = 4096
MAP_BYTES = 2 * _SLOT_BYTES
_HEADER = struct.Struct("<8sQQL")
"""Magic, sequence number, total, number of spans. The spans follow, and a CRC-32 of all bytes before it."""
_SPAN = struct.Struct("<QQ")
_CHECKSUM = struct.Struct("<L")
_MAGIC = b"present1"
SPANS_LIMIT = (_SLOT_BYTES - _HEADER.size - _CHECKSUM.size) // _SPAN.size
_MARK = stat.S_ISVTX
"""Linux ignores this bit of a regular file. Writes do not clear it, and it gives no user more rights."""


def has_map(state: os.stat_result) -> bool:
    """Whether the file is marked as one that has a map. A map that was never written completely is not valid."""
    return bool(state.st_mode & _MARK)


class PresentBytes(Value, frozen=True):
    """What a map contains: the bytes that are present, and the length of the blob. `number`: the sequence number."""

    present: SpanSet
    total: int
    number: int


def read_map(descriptor: int, size: int) -> PresentBytes | None:
    """The content of the map of a marked file of `size` bytes; None if no slot is valid. Raises OSError."""
    total = size - MAP_BYTES
    if total < 0:
        return None
    content = os.pread(descriptor, MAP_BYTES, total)
    if len(content) < MAP_BYTES:
        return None  # another process has just removed the map, because the blob is whole
    slots = [_read_slot(content[start : start + _SLOT_BYTES], total) for start in (0, _SLOT_BYTES)]
    return max((slot for slot in slots if slot), key=lambda slot: slot.number, default=None)


class PresentMap:
    """The map of a file, for the process that has the lease."""

    def __init__(self, descriptor: int, total: int, last: PresentBytes | None = None) -> None:
        """`last`: what the map contains; None if the file has no map yet. Does not write."""
        self.total = total
        self._descriptor = descriptor
        self._recorded = last.present if last else SpanSet()
        self._number = last.number if last else 0

    def record(self, present: SpanSet) -> None:
        """Write what is present, in the slot that is not the last one. If it raises OSError, the map is as before."""
        number, recorded = self._number + 1, _most_that_fits(present, self._recorded)
        slot = _slot(PresentBytes(recorded, self.total, number))
        place = self.total + number % 2 * _SLOT_BYTES
        if not self._number:
            self._begin()
        if os.pwrite(self._descriptor, slot, place) != len(slot):
            raise OSError("the map was not written completely")
        self._number, self._recorded = number, recorded

    def _begin(self) -> None:
        # First the mark, then the new size: no process may believe that the bytes up to the new size are present.
        state = os.fstat(self._descriptor)
        os.fchmod(self._descriptor, stat.S_IMODE(state.st_mode) | _MARK)
        if not has_map(os.fstat(self._descriptor)):
            raise OSError("the file system does not keep the mode of a file")
        os.ftruncate(self._descriptor, self.total + MAP_BYTES)


def _slot(content: PresentBytes) -> bytes:
    spans = content.present.spans
    header = _HEADER.pack(_MAGIC, content.number, content.total, len(spans))
    slot = header + b"".join(_SPAN.pack(span.start, span.stop) for span in spans)
    return (slot + _CHECKSUM.pack(zlib.crc32(slot))).ljust(_SLOT_BYTES, b"\0")


def _read_slot(slot: bytes, total: int) -> PresentBytes | None:
    """None if the slot was not written completely."""
    magic, number, blob_size, count = _HEADER.unpack_from(slot)
    if magic != _MAGIC or blob_size != total or count > SPANS_LIMIT:
        return None
    end = _HEADER.size + count * _SPAN.size
    if _CHECKSUM.unpack_from(slot, end)[0] != zlib.crc32(slot[:end]):
        return None
    spans = SpanSet(tuple(Span(start, stop) for start, stop in _SPAN.iter_unpack(slot[_HEADER.size : end])))
    return PresentBytes(spans, total, number)


def _most_that_fits(present: SpanSet, recorded: SpanSet) -> SpanSet:
    """The spans that the map can contain. Whatever was recorded stays recorded, because other processes may have read
    these bytes. There is always room for the beginning.
    """
    if len(present.spans) <= SPANS_LIMIT:
        return present
    chosen = [span for span in present if recorded.overlaps(span)]
    for span in present:
        if len(chosen) < SPANS_LIMIT - (span.start > 0) and not recorded.overlaps(span):
            chosen.append(span)
    return SpanSet(tuple(sorted(chosen, key=lambda span: span.start)))
