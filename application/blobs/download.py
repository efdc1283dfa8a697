"""Download: the state of one blob on its way into the cache, and its readers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from application.access.access_request import PullAccess
from application.ports.content import ContentPart, OpenFile
from application.ports.upstream import ResponseMetadata
from domain.digest import Digest

_SMALL_BYTES = 64 * 1024


class PartialBlobLost(Exception):
    """The bytes that the readers have received will not be continued, in this process or in another one. Each reader
    fetches the rest itself.
    """


class Download:
    """The progress of a download. FetchBlob changes it, PullBlob reads it, and no other class holds this state.

    The last byte is withheld until the digest has been verified, so that no reader receives a complete wrong body. A
    range that ends before the last byte is delivered as it arrives, as any registry would.
    """

    def __init__(self, digest: Digest, access: PullAccess, *, is_restart: bool = False) -> None:
        self.digest = digest
        self.upstream = access.source.upstream
        """The upstream that sends all bytes."""
        self.is_restart = is_restart
        """The previous download ended because the upstream had begun to send different bytes."""
        self.accesses = [access]
        """The accesses of callers that the download may use, in this order. The upstream decides on each."""
        self.size = 0
        """Bytes in the partial blob."""
        self.space_until = 0
        """The cache has space for the blob up to this offset."""
        self.is_public = False
        """All bytes so far are public."""
        self.total: int | None = None
        """The length of the blob in bytes; None while it is unknown."""
        self.readers = 0
        self.unread_since = 0.0
        """When the last reader left, or when the download started; in seconds since 1970."""
        self.left_unread: Callable[[Download], None] = lambda _: None
        """Called when the last reader leaves before the download is over."""
        self.failure: BaseException | None = None
        self._begun: asyncio.Future[ResponseMetadata | None] = asyncio.get_running_loop().create_future()
        self._files: list[OpenFile] = []
        self._is_whole = False
        self._changed = asyncio.Event()

    # --- for readers ---

    def begun(self) -> Awaitable[ResponseMetadata | None]:
        """Waits for the first response of the upstream, and returns its metadata. None if this process does not ask the
        upstream, because another process downloads the blob or has completed it. Raises the failure of a download that
        ended before that.
        """
        return asyncio.shield(self._begun)

    def offer(self, access: PullAccess) -> None:
        """Add the access of another caller at the same upstream. It is used when the accesses before it have been
        refused.
        """
        if all(access.identity != known.identity for known in self.accesses):
            self.accesses.append(access)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Registers a reader. While there is one, the download continues and its file stays open."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self._update()
            if not self.readers and not self.is_over:
                self.left_unread(self)

    async def parts(self, start: int, stop: int) -> AsyncIterator[ContentPart]:
        """The bytes of this span as they become readable, at most to the end of the blob. Raises the failure of a
        download that ended early.
        """
        # A small blob is delivered after its digest was verified, so that the client receives an error if the digest is
        # wrong.
        is_small = self.total is not None and self.total <= _SMALL_BYTES
        while start < stop:
            while not self._is_whole and (is_small or self.readable <= start):
                if self.failure:
                    raise self.failure
                # Each reader waits for the next change. A change sets the event and replaces it.
                await self._changed.wait()
            end = min(self.readable, stop)
            if end <= start:
                return
            yield ContentPart(self.file, start, end)
            start = end

    @property
    def file(self) -> OpenFile:
        return self._files[-1]

    @property
    def readable(self) -> int:
        """The number of bytes from the start of the blob that readers may receive."""
        if self._is_whole:
            return self.size
        return max(0, self.size - 1) if self.total is None else min(self.size, self.total - 1)

    # --- for the task that downloads ---

    @property
    def has_begun(self) -> bool:
        return self._begun.done()

    @property
    def is_over(self) -> bool:
        return self._is_whole or self.failure is not None

    def begin(self, metadata: ResponseMetadata | None, total: int | None = None) -> None:
        """The first response has arrived, or another process downloads the blob. Later calls only set `total` if it is
        unknown.
        """
        if not self.has_begun:
            self._begun.set_result(metadata)
        self.expect(total)

    def expect(self, total: int | None) -> None:
        """Set the length of the blob in bytes, if it is unknown."""
        if self.total is None:
            self.total = total

    def read_from(self, file: OpenFile) -> None:
        """From now on, the readers read from this file."""
        self._files.append(file)

    def grow(self, size: int) -> None:
        """The partial blob has `size` bytes now."""
        self.size = size
        self._update()

    def complete(self) -> None:
        """The blob is whole and its digest is verified."""
        self._is_whole = True
        self.begin(None)
        self.total = self.size
        self._update()

    def fail(self, failure: BaseException) -> None:
        """End the download early, for all its readers."""
        self.failure = failure
        if not self.has_begun:
            self._begun.set_exception(failure)
            self._begun.exception()  # retrieved, or asyncio warns when no reader waits
        self._update()

    def _update(self) -> None:
        """Wake the readers, and close the files if the download is over and has no reader."""
        self._changed.set()
        self._changed = asyncio.Event()
        if self.is_over and not self.readers:
            while self._files:
                self._files.pop().close()
