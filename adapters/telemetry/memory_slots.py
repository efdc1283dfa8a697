"""Slots in memory that all workers share. A slot has a time, content, and a checksum of both.

Only one worker writes to a slot, so there are no locks. If the checksum is wrong, the worker is writing the slot, or
was killed meanwhile.
"""

import mmap
import struct
import zlib

_HEAD = struct.Struct("<dHI")  # time, length of the content, checksum of both and of the content
HEAD_BYTES = _HEAD.size
"""Bytes of a slot besides its content."""


def write_slot(memory: mmap.mmap, place: int, at: float, content: bytes) -> None:
    """`place`: where the slot begins; `at`: seconds since 1970; `content`: at most 65,535 bytes, which fit into the
    slot.
    """
    written = _HEAD.pack(at, len(content), _checksum(at, content)) + content
    memory[place : place + len(written)] = written


def time_of_slot(memory: mmap.mmap, place: int) -> float:
    """The time in the slot, unchecked; 0 if nothing was written."""
    at: float = _HEAD.unpack_from(memory, place)[0]
    return at


def read_slot(memory: mmap.mmap, place: int) -> tuple[float, bytes] | None:
    """The time and the content. None if the checksum is wrong, or if nothing was written."""
    at, length, checksum = _HEAD.unpack_from(memory, place)
    content = memory[place + _HEAD.size : place + _HEAD.size + length]
    return (at, content) if checksum == _checksum(at, content) else None


def _checksum(at: float, content: bytes) -> int:
    return zlib.crc32(_HEAD.pack(at, len(content), 0) + content)
