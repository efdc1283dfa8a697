"""WriteBatches: writes arriving bytes in batches, while the next bytes are being received."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from application.concurrency import until_done
from application.ports.content import PartialBlob
from domain.digest import Bytes

_FULL = 1024 * 1024
"""Bytes in a full batch. Fewer bytes wait for more."""
_LINGER_SECONDS = 0.002
"""How long fewer bytes wait. Short, because readers of a slow upstream wait for each piece."""
_FIRST = 64 * 1024
"""Bytes that are written before all others, because readers wait for the first byte."""
_AHEAD = 4 * _FULL
"""Maximum bytes that may wait to be written. Above it, `add` waits."""
_LOOK_SECONDS = 0.002
"""How often `add` then checks the progress of the write."""


class WriteBatches:
    """Runs one write at a time, and a long one if there is much to write. Returning to the event loop after each batch,
    and waiting until it starts the next one, left the disk idle for half of the time.
    """

    def __init__(
        self, partial_blob: PartialBlob, write: Callable[[deque[Bytes]], Awaitable[None]], grown: Callable[[], None]
    ) -> None:
        """`write` writes bytes from the start of the queue to the partial blob, all of them or some. `grown` is called
        when the partial blob may have grown. The next call raises what `write` has raised.
        """
        self._partial_blob = partial_blob
        self._write = write
        self._grown = grown
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[Bytes] = deque()
        self._end = partial_blob.size
        """The size of the partial blob when everything is written."""
        self._is_first = True
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, piece: Bytes) -> None:
        """Add the piece. Waits while too much is waiting to be written."""
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
        """Waits for the write, even if this task is cancelled: until then the partial blob is in use."""
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
        """Bytes that are not yet written. Not computed from the queue, because a thread takes pieces from it."""
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
            # These arrived while the last batch was written. The next ones may not arrive for a long time.
            self._loop.call_soon(self._begin_soon)
