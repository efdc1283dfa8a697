"""Fill: one blob on its way into the cache, and everybody who reads along."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from application.access.access_request import PullAccess
from application.ports.content import ContentPart, OpenFile
from application.ports.upstream import ResponseMetadata
from domain.digest import Digest

_SMALL = 64 * 1024


class PartialBlobLost(Exception):
    """What readers have the beginning of does not go on, here or in another process. Each goes on alone."""


class Download:
    """How far it has come, as its readers see it. What makes it grow is DownloadTask.

    The last byte is withheld until the digest is known to be right, so that no reader gets a complete wrong body. A
    range that ends before it is given as it arrives, as any registry would give it.
    """

    def __init__(self, digest: Digest, access: PullAccess, *, is_anew: bool = False) -> None:
        self.digest = digest
        self.upstream = access.source.upstream
        """Where all its bytes come from."""
        self.is_anew = is_anew
        """The one before it ended because the upstream had begun to send something else."""
        self.asks = [access]
        """With whose rights the upstream may be asked; it decides on each."""
        self.opened: asyncio.Future[ResponseMetadata | None] = asyncio.get_running_loop().create_future()
        """What the upstream said to the first ask; None where it was not asked, since others fill or have filled."""
        self.total: int | None = None
        self.size = 0
        self.readers = 0
        self.left_unread: Callable[[Download], None] = lambda _: None
        """Called when the last reader leaves before it is over."""
        self._files: list[OpenFile] = []
        self._is_whole = False
        self.failure: Exception | None = None
        self._changed = asyncio.Event()

    # --- for readers ---

    def offer(self, access: PullAccess) -> None:
        """Another proven right at the same upstream; the fill goes on with it should the first one end."""
        if all(access.identity != known.identity for known in self.asks):
            self.asks.append(access)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While somebody reads, it goes on and its file stays open."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self._close_if_over()
            if not self.readers and not self.is_over:
                self.left_unread(self)

    async def parts(self, start: int, stop: int | None) -> AsyncIterator[ContentPart]:
        """The bytes of this span, as they become readable; `stop` None means to the end.

        Raises what ended the fill early.
        """
        if self.total is not None and self.total <= _SMALL:
            # Not worth being early: of a wrong small one, the empty one too, there can still be an error instead.
            await self._beyond(max(0, self.total - 1))
        position = start
        while stop is None or position < stop:
            readable = await self._beyond(position)
            if readable <= position:
                return
            end = readable if stop is None else min(readable, stop)
            yield ContentPart(self.file, position, end)
            position = end

    @property
    def file(self) -> OpenFile:
        return self._files[-1]

    @property
    def readable(self) -> int:
        if self._is_whole:
            return self.size
        return max(0, self.size - 1) if self.total is None else min(self.size, self.total - 1)

    async def _beyond(self, position: int) -> int:
        """How far it can be read, once that is farther than this, or all."""
        while self.readable <= position and not self._is_whole:
            if self.failure:
                raise self.failure
            # Each reader waits for the next change; whoever changes something sets the event and puts a new one.
            await self._changed.wait()
        return self.readable

    # --- for whoever fills ---

    @property
    def is_over(self) -> bool:
        return self._is_whole or self.failure is not None

    def opens(self, file: OpenFile) -> None:
        self._files.append(file)

    def grows(self, size: int) -> None:
        """So many bytes are in the file now."""
        self.size = size
        self._wake()

    def is_whole(self) -> None:
        """All is there and right."""
        self._is_whole = True
        self.total = self.size
        self._settle(None)

    def fails(self, failure: Exception) -> None:
        """It ends early, for everybody who reads it."""
        self.failure = failure
        self._settle(failure)

    def _settle(self, failure: Exception | None) -> None:
        if not self.opened.done():
            if failure is None:
                self.opened.set_result(None)
            else:
                self.opened.set_exception(failure)
                self.opened.exception()  # looked at: maybe nobody waits for it any more
        self._wake()
        self._close_if_over()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _close_if_over(self) -> None:
        if self.is_over and not self.readers:
            while self._files:
                self._files.pop().close()
