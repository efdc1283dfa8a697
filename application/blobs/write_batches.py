"""Batches: what arrives is written while the next pieces are already being read."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from application.concurrency import until_done
from application.ports.content import PartialBlob
from domain.digest import Bytes

_FULL = 1024 * 1024
"""So many bytes are written at once; fewer wait for more."""
_LINGER_SECONDS = 0.002
"""How long: short, for a slow upstream has readers that wait for each piece."""
_FIRST = 64 * 1024
"""So many are written before all others, for there are readers who wait for the first byte."""
_AHEAD = 4 * _FULL
"""So many bytes may wait to be written; then no more are taken."""
_LOOK_SECONDS = 0.002
"""How often it is looked then how far the writing has come."""


class WriteBatches:
    """One write at a time, and a long one where there is much to write: to come back to the loop after each batch, and
    to wait until it begins the next, left the disk idle for half of the time.
    """

    def __init__(
        self, partial_blob: PartialBlob, write: Callable[[deque[Bytes]], Awaitable[None]], grown: Callable[[], None]
    ) -> None:
        """`write` writes to the draft from the beginning of the queue, all of it or some; `grown` is called when the
        draft may have grown. What `write` raises comes out of the next call.
        """
        self._partial_blob = partial_blob
        self._write = write
        self._grown = grown
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[Bytes] = deque()
        self._end = partial_blob.size
        """Where the draft will end when all is written."""
        self._is_first = True
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, piece: Bytes) -> None:
        """Take the piece; waits while there is much to write already."""
        self._end += len(piece)
        if self._is_first:
            self._is_first = False
            first = deque([piece[:_FIRST]])
            while first:
                await self._write(first)
            piece = piece[_FIRST:]
        self._pieces.append(piece)
        if self._waiting >= _FULL:
            self._begin()
        elif self._waiting:
            self._begin_soon()
        self._grown()
        while (writing := self._running) and self._waiting > _AHEAD:
            await asyncio.wait([writing], timeout=_LOOK_SECONDS)
            self._grown()
        if self._writing and self._writing.done():
            self._writing.result()

    async def finish(self) -> None:
        """Returns when everything has been written."""
        while self._pieces or self._running:
            self._begin()
            if self._writing:
                await self._ended(self._writing)

    async def _ended(self, writing: asyncio.Task[None]) -> None:
        """Whoever is cancelled meanwhile waits all the same: until then the draft is in use."""
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await until_done(writing)
            raise

    @property
    def _running(self) -> asyncio.Task[None] | None:
        return self._writing if self._writing and not self._writing.done() else None

    @property
    def _waiting(self) -> int:
        """Bytes that are not written yet. The queue cannot be asked: a thread takes from it."""
        return self._end - self._partial_blob.size

    def _begin_soon(self) -> None:
        if self._timer is None and not self._running:
            self._timer = self._loop.call_later(_LINGER_SECONDS, self._begin)

    def _begin(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        has_failed = self._writing is not None and self._writing.done() and self._writing.exception() is not None
        if not self._running and not has_failed:
            self._writing = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._write(self._pieces)
        while self._waiting >= _FULL:
            await self._write(self._pieces)
        self._grown()
        if self._pieces:
            # They came while the last of the others were written, and nobody may come after them for a long time.
            self._loop.call_soon(self._begin_soon)
