"""Batches: many small pieces become few large writes, while the next pieces are already being read."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

_FULL = 1024 * 1024
"""Bytes; a batch of this size is written at once. Larger ones made nothing faster, smaller ones cost more threads."""
_LINGER_SECONDS = 0.002
"""How long a smaller one waits for more: short, for a slow upstream has readers that wait for each piece."""


class Batches:
    """One write at a time. `write` gets the pieces of a batch, in order; what it raises comes out of the next call."""

    def __init__(self, write: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_first = True

    async def add(self, piece: bytes) -> None:
        """Take the piece; waits while a full batch cannot be written yet."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _FULL or self._is_first:
            self._is_first = False
            await self._written()
            self._begin()
        elif not self._is_writing:
            self._begin_soon()

    async def finish(self) -> None:
        """Returns when everything has been written."""
        await self._written()
        self._begin()
        await self._written()

    @property
    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    async def _written(self) -> None:
        """Nothing is being written any more. Raises what the write raised."""
        while writing := self._writing:
            await asyncio.shield(writing)
            # The timer may have begun the next one by now, which must not be lost.
            if self._writing is writing:
                self._writing = None

    def _begin_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_LINGER_SECONDS, self._begin)

    def _begin(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        has_failed = self._writing is not None and self._writing.done() and self._writing.exception() is not None
        if not self._pieces or self._is_writing or has_failed:
            return
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._writing = asyncio.create_task(self._run(pieces))

    async def _run(self, pieces: Sequence[bytes]) -> None:
        await self._write(pieces)
        if self._pieces:
            # They came while this batch was written, and nobody may come after them for a long time.
            self._begin_soon()
