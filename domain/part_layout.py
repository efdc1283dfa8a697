"""The parts in which replicas share a large blob: 1, 1, 2, 4, 8 and then always 16 MiB."""

from collections.abc import Iterator

from domain.byte_ranges import Span

MIB = 1024 * 1024
INLINE_BYTES = 1 * MIB
"""Smaller blobs are one object together with their record."""
_LARGEST = 16 * MIB


def parts_of(total: int | None, start: int = 0) -> Iterator[Span]:
    """The parts of a blob of `total` bytes that end after `start`, in order. The first parts are small, so that the
    clients of other replicas soon receive the first bytes. `total`: None while it is unknown; the parts then never end.
    """
    begin, size = 0, MIB
    while total is None or begin < total:
        stop = begin + size if total is None else min(begin + size, total)
        if stop > start:
            yield Span(begin, stop)
        begin = stop
        size = min(max(begin, MIB), _LARGEST)


def part_at(offset: int, total: int | None) -> Span:
    """The part that contains the byte at `offset`, which is inside the blob."""
    return next(parts_of(total, offset))
