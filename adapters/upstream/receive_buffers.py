"""ReceiveBuffers: the buffers into which the sessions receive large bodies."""

import asyncio

BUFFER_BYTES = 512 * 1024
"""The size of a buffer in bytes."""
_KEPT = 16
"""Maximum buffers that are kept for reuse. A download that waits for the disk uses about this many."""
_REST_SECONDS = 1.0
"""Without a download for this long, the buffers are freed."""


class ReceiveBuffers:
    """Reuses a buffer when nothing refers to its bytes any more. The kernel maps and clears the pages of each new
    buffer, which costs as much processor time as receiving the bytes.

    A consumer may keep the pieces of a body for as long as it needs them, also in another thread. As long as there is a
    memoryview of a bytearray, Python does not let the bytearray change its size. So a buffer whose size can be changed
    is not in use.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rest_seconds: float = _REST_SECONDS) -> None:
        """After `rest_seconds` in which no buffer was taken, none is kept any more."""
        self._loop = loop
        self._rest_seconds = rest_seconds
        self._buffers: list[bytearray] = []
        """In the order in which they were taken, which is about the order in which they become unused."""
        self._taken_at = 0.0

    def take(self) -> memoryview:
        """A buffer of BUFFER_BYTES. It contains bytes of earlier bodies until it is overwritten."""
        self._taken_at = self._loop.time()
        if not self._buffers:
            self._loop.call_later(self._rest_seconds, self._release)
        buffer = self._take_unused() or bytearray(BUFFER_BYTES)
        self._buffers.append(buffer)
        del self._buffers[:-_KEPT]
        return memoryview(buffer)

    def _take_unused(self) -> bytearray | None:
        for place, buffer in enumerate(self._buffers):
            if _is_unused(buffer):
                return self._buffers.pop(place)
        return None

    def _release(self) -> None:
        rest = self._taken_at + self._rest_seconds - self._loop.time()
        if rest > 0:
            self._loop.call_later(rest, self._release)
        else:
            self._buffers.clear()


def _is_unused(buffer: bytearray) -> bool:
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
