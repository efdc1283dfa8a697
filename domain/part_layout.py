"""The sizes of the parts in which replicas share a large blob: 1, 1, 2, 4, 8 and then always 16 MiB."""

MIB = 1024 * 1024
INLINE_BYTES = MIB
"""Blobs up to this size are one object together with their record."""
LARGEST_PART_BYTES = 16 * MIB


def part_size(offset: int) -> int:
    """The usual size in bytes of the part that begins at `offset`. The first parts are small, so that the clients of
    other replicas soon receive the first bytes.
    """
    return min(max(offset, MIB), LARGEST_PART_BYTES)
