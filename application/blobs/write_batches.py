"""WriteBatches: writes arriving bytes in batches, while the next bytes are being received."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from application.concurrency import until_done
from application.ports.content import PartialBlob, StorageFull
from domain.digest import Bytes

_BATCH_BYTES = 1024 * 1024
"""A full batch. Fewer bytes wait for more."""
_LINGER_SECONDS = 0.002
"""How long fewer bytes wait. Short, because readers of a slow upstream wait for each piece."""
_FIRST_BYTES = 64 * 1024
"""These are written before all others, because readers in other processes wait for the first byte."""
_WAITING_LIMIT = 3 * _BATCH_BYTES
"""Maximum bytes that may wait to be written. Above it, `add` waits."""


class WriteBatches:
    """Runs one write at a time, and a long one if there is much to write. Returning to the event loop after each batch,
    and waiting until it starts the next one, left the disk idle for half of the time.
    """

    def __init__(
        self,
        partial_blob: PartialBlob,
        offset: int,
        make_space: Callable[[int], Awaitable[None]],
        grown: Callable[[], None],
    ) -> None:
        """The pieces are written one after the other, starting at `offset`, where bytes are missing. `make_space` frees
        bytes on the disk if it is full. `grown` is called when the partial blob may have grown. The next call raises
        what a write has raised.
        """
        self._partial_blob = partial_blob
        self._make_space = make_space
        self._grown = grown
        self._pieces: deque[Bytes] = deque()
        self._start = self.end = offset
        """`end`: the end of the bytes in the partial blob when everything is written."""
        self._is_first = True
        self._is_finishing = False
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._progress = asyncio.Event()

    async def add(self, piece: Bytes) -> None:
        """Add the piece. Waits while too much is waiting to be written."""
        if self._is_first:
            self._is_first = False
            self._queue(piece[:_FIRST_BYTES])
            await self.finish()
            piece = piece[_FIRST_BYTES:]
        self._queue(piece)
        if self._waiting >= _BATCH_BYTES:
            self._begin()
        elif self._waiting:
            self._begin_soon()
        self._grown()
        while self._running and self._waiting > _WAITING_LIMIT:
            self._progress.clear()
            await self._progress.wait()
        if self._writing and self._writing.done():
            self._writing.result()

    async def finish(self) -> None:
        """Returns when everything has been written. Waits for the write even if this task is cancelled: until then the
        partial blob is in use.
        """
        self._is_finishing = True
        try:
            while self._pieces or self._running:
                self._begin()
                if self._writing:
                    await asyncio.shield(self._writing)
        except asyncio.CancelledError:
            if self._writing:
                await until_done(self._writing)
            raise
        finally:
            self._is_finishing = False

    def _expects_more(self) -> bool:
        return not self._is_finishing

    def _has_grown(self) -> None:
        """Runs in the thread that writes."""
        self._loop.call_soon_threadsafe(self._has_progressed)

    def _has_progressed(self, _writing: object = None) -> None:
        """Bytes were written, or the write has ended."""
        self._grown()
        self._progress.set()

    def _queue(self, piece: Bytes) -> None:
        self.end += len(piece)
        self._pieces.append(piece)

    @property
    def _running(self) -> asyncio.Task[None] | None:
        return self._writing if self._writing and not self._writing.done() else None

    @property
    def _waiting(self) -> int:
        """Bytes that are not yet written. Not computed from the queue, because a thread takes pieces from it."""
        return self.end - self._written

    @property
    def _written(self) -> int:
        """The end of the bytes that are written."""
        return min(self.end, self._partial_blob.present.end_of(self._start))

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
            self._writing.add_done_callback(self._has_progressed)

    async def _run(self) -> None:
        is_full_batch = True
        while is_full_batch:
            try:
                await self._write()
            except StorageFull:
                await self._make_space(self._waiting)
                await self._write()
            is_full_batch = self._waiting >= _BATCH_BYTES
        if self._pieces:
            # These arrived while the last batch was written. The next ones may not arrive for a long time.
            self._loop.call_soon(self._begin_soon)

    def _write(self) -> Coroutine[Any, Any, int]:
        return self._partial_blob.write(self._written, self._pieces, self._expects_more, self._has_grown)
