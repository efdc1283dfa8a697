"""What the C library does with memory that is free."""

import ctypes

# mallopt(3), in malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 512 * 1024
"""Bytes. The buffers for bodies have this size."""
_KEPT = 3 * 1024 * 1024
"""Bytes that stay free at the end of the heap, so that the chunks of bodies over TLS do not resize it each time."""


def return_free_memory() -> None:
    """Make glibc return large free buffers to the system. Called before the workers are forked, which inherit it.

    By default, glibc moves its threshold for large buffers up when the first one is freed. Later ones lie between small
    objects that live long, so that a worker that had downloaded a blob kept up to 24 MiB. And glibc gives each thread
    memory of its own. Does nothing with other C libraries.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
    library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    library.mallopt(_M_ARENA_MAX, 1)
    library.malloc_trim(0)  # what the imports have freed
