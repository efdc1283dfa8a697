"""ReceiveBuffers: the buffers into which the sessions receive large bodies."""

BUFFER_BYTES = 512 * 1024
"""The size of a buffer in bytes."""
_KEPT = 16
"""Maximum buffers that are kept for reuse. A download that waits for the disk uses about this many."""


class ReceiveBuffers:
    """Reuses a buffer when nothing refers to its bytes any more. The kernel maps and clears the pages of each new
    buffer, which costs as much processor time as receiving the bytes.

    A consumer may keep the pieces of a body for as long as it needs them, also in another thread. As long as there is a
    memoryview of a bytearray, Python does not let the bytearray change its size. So a buffer whose size can be changed
    is not in use.
    """

    def __init__(self) -> None:
        self._buffers: list[bytearray] = []
        """In the order in which they were taken, which is about the order in which they become unused."""

    def take(self) -> memoryview:
        """A buffer of BUFFER_BYTES. It contains bytes of earlier bodies until it is overwritten."""
        buffer = self._take_unused() or bytearray(BUFFER_BYTES)
        self._buffers.append(buffer)
        del self._buffers[:-_KEPT]
        return memoryview(buffer)

    def _take_unused(self) -> bytearray | None:
        for place, buffer in enumerate(self._buffers):
            if _is_unused(buffer):
                return self._buffers.pop(place)
        return None


def _is_unused(buffer: bytearray) -> bool:
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
