"""Download: the state of one blob on its way into the cache, and its readers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from application.access.access_request import PullAccess
from application.ports.activity import DownloadState
from application.ports.content import ContentPart, OpenFile
from application.ports.tracing import NO_SPAN, TraceSpan
from application.ports.upstream import ResponseMetadata
from domain.byte_ranges import ByteRange, Span, grouped
from domain.digest import Bytes, Digest
from domain.rate_meter import RateMeter
from domain.span_set import SpanSet

_SMALL_BYTES = 64 * 1024
_SHOWN_REPOSITORIES = 8
_AHEAD = 2
"""Of a reader of several parts, this many groups of parts are fetched at the same time."""


class PartialBlobLost(Exception):
    """The bytes that the readers have received will not be continued, in this process or in another one. Each reader
    fetches the rest itself.
    """


class FirstBytes:
    """The first bytes of a blob, in memory. Readers receive them while they are being stored: a client does not wait
    for the disk, nor for the thread that writes.
    """

    def __init__(self, content: Bytes) -> None:
        self.content = content

    async def read(self, start: int, stop: int) -> bytes:
        return bytes(self.content[start:stop])


class Want:
    """The bytes that one reader still needs. The first of them are needed first."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._left = list(spans)

    @property
    def spans(self) -> Sequence[Span]:
        return self._left

    def received(self, stop: int) -> None:
        """The reader has received the bytes of its first span up to `stop`."""
        first = self._left[0]
        if stop < first.stop:
            self._left[0] = Span(stop, first.stop)
        else:
            self._left.pop(0)


class Download:
    """The progress of a download. FetchBlob and Transfer change it, PullBlob reads it, and no other class holds this
    state.

    A download fetches the whole blob, or only what its readers want. A reader of the whole blob receives the last byte
    after the digest has been verified, so that no reader receives a complete wrong body. A reader of a part receives it
    as it arrives, as from any registry.
    """

    def __init__(
        self, digest: Digest, access: PullAccess, first_range: ByteRange | None = None, *, is_restart: bool = False
    ) -> None:
        self.digest = digest
        self.upstream = access.source.upstream
        """The upstream that sends all bytes."""
        self.first_range = first_range
        """The part that the first request asks for; None for the whole blob."""
        self.is_restart = is_restart
        """The previous download ended because the parts that the upstream sent did not belong together. This one
        fetches the blob over a single connection.
        """
        self.accesses = [access]
        """The accesses of callers that the download may use, in this order. The upstream decides on each."""
        self._repositories = {access.source.repository: None}
        """The repositories from which callers with a permission want the blob, in the order of their requests. Whether
        the first caller has the permission is known when the upstream has answered.
        """
        self.present = SpanSet()
        """The bytes in the partial blob."""
        self.first_bytes: FirstBytes | None = None
        """Set from the arrival of the first bytes until they are stored."""
        self.is_whole_wanted = first_range is None
        """All bytes are fetched, whatever the readers want."""
        self.part_requests = 0
        """How many readers wanted a part."""
        self.is_public = False
        """All bytes so far are public."""
        self.total: int | None = None
        """The length of the blob in bytes; None while it is unknown."""
        self.received = 0
        """Bytes that this process has received from the upstream or from other replicas, also those of repeated
        requests.
        """
        self.connections: Callable[[], int] = lambda: 0
        """The number of requests that fetch the blob now."""
        self.readers = 0
        self.started_at = 0.0
        """In seconds since 1970."""
        self.unread_since = 0.0
        """When the last reader left, or when the download started; in seconds since 1970."""
        self.left_unread: Callable[[Download], None] = lambda _: None
        """Called when the last reader leaves before the download is over."""
        self.may_fetch_whole: Callable[[], bool] = lambda: True
        """Whether requests for parts may start the download of the whole blob: not if too many have no reader."""
        self.wants_changed: Callable[[], None] = lambda: None
        """Called when a reader begins to want bytes, and when a reader leaves."""
        self.failure: BaseException | None = None
        self.span: TraceSpan = NO_SPAN
        """The span of the download. It begins in the trace of the request that started it, and is linked with the
        requests that join.
        """
        self._wants: dict[Want, None] = {}
        self._begun: asyncio.Future[ResponseMetadata | None] = asyncio.get_running_loop().create_future()
        self._files: list[OpenFile] = []
        self._holders = 0
        self._is_whole = False
        self._changed = asyncio.Event()
        self._first_sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._speed = RateMeter()

    def state(self) -> DownloadState:
        """For the page. Called at intervals, because the speed is that since the calls of the last seconds."""
        speed = self._speed.look(asyncio.get_running_loop().time(), self.received)
        return DownloadState(
            self.upstream,
            self.digest,
            tuple(islice(self._repositories, _SHOWN_REPOSITORIES)),
            len(self._repositories) > _SHOWN_REPOSITORIES,
            self.started_at,
            self.present.length,
            self.total,
            speed[0] if speed else None,
            self.connections(),
            self.readers,
        )

    # --- for readers ---

    def begun(self) -> Awaitable[ResponseMetadata | None]:
        """Waits for the first response of the upstream, and returns its metadata. None if this process does not ask the
        upstream, because it has the bytes already, or because another process downloads the blob or has completed it.
        Raises the failure of a download that ended before that.
        """
        return asyncio.shield(self._begun)

    def offer(self, access: PullAccess) -> None:
        """Add the access of another caller at the same upstream. It is used when the accesses before it have been
        refused.
        """
        if len(self._repositories) <= _SHOWN_REPOSITORIES:
            self._repositories.setdefault(access.source.repository)
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
            self.wants_changed()
            if not self.readers and not self.is_over:
                self.left_unread(self)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keeps the file open, also after the download is over. Unlike a reader, it does not make the download
        continue.
        """
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._update()

    async def changed(self) -> None:
        """Waits for the next change: more bytes, or the end."""
        # Each reader waits for the next change. A change sets the event and replaces it.
        await self._changed.wait()

    @contextmanager
    def wanting(self, spans: Sequence[Span]) -> Iterator[Want]:
        """Registers the bytes that a reader wants. While it wants them, they are fetched before all others."""
        want = Want(spans)
        self._wants[want] = None
        self.wants_changed()
        try:
            yield want
        finally:
            del self._wants[want]

    async def parts(self, want: Want, *, is_part: bool) -> AsyncIterator[Bytes | ContentPart]:
        """The wanted bytes as they become readable, at most to the end of the blob. Raises the failure of a download
        that ended early. `is_part`: the reader wants a part of the blob, and not its rest.
        """
        is_small = self._is_small
        while want.spans:
            start, stop = want.spans[0].start, want.spans[0].stop
            while not self._is_whole and (is_small or self.readable_from(start, is_part=is_part) <= start):
                if self.failure:
                    raise self.failure
                await self.changed()
            end = min(self.readable_from(start, is_part=is_part), stop)
            if end <= start:
                return
            if self.first_bytes and not start:
                yield self.first_bytes.content[:end]
                if not self._first_sent.done():
                    self._first_sent.set_result(None)
            else:
                yield ContentPart(self.file, start, end)
            want.received(end)

    def beginning(self, stop: int) -> OpenFile | FirstBytes | None:
        """Where the bytes up to `stop` can be read again; None if not all of them have arrived."""
        if stop <= self.present.beginning:
            return self.file
        return self.first_bytes if self.first_bytes and stop <= len(self.first_bytes.content) else None

    @property
    def _is_small(self) -> bool:
        """A small blob is delivered after its digest was verified, so that the client receives an error if the digest
        is wrong.
        """
        return self.is_whole_wanted and self.total is not None and self.total <= _SMALL_BYTES

    @property
    def file(self) -> OpenFile:
        return self._files[-1]

    def readable_from(self, start: int, *, is_part: bool) -> int:
        """The end of the bytes that a reader may receive from this offset on."""
        end = len(self.first_bytes.content) if self.first_bytes and not start else self.present.end_of(start)
        if self._is_whole or (self.total is not None and (is_part or not self.is_whole_wanted)):
            return end
        return end - 1 if self.total is None else min(end, self.total - 1)

    # --- for the task that downloads ---

    def needs(self) -> Iterator[Span]:
        """What each reader needs next, without the readers that receive the whole blob from its beginning on. Parts
        that are close together are one span, because one request for them costs less.
        """
        received_by_all = self.present.beginning if self.is_whole_wanted else -1
        for want in self._wants:
            if want.spans and want.spans[0].start > received_by_all:
                yield from (Span(group[0].start, group[-1].stop) for group in grouped(want.spans)[:_AHEAD])

    @property
    def has_begun(self) -> bool:
        return self._begun.done()

    @property
    def is_over(self) -> bool:
        return self.is_verified or self.failure is not None

    @property
    def is_verified(self) -> bool:
        """The blob is whole and its digest is right."""
        return self._is_whole

    def begin(self, metadata: ResponseMetadata | None, total: int | None = None) -> None:
        """The first response has arrived, or there is nothing to ask. Later calls only set `total` if it is unknown."""
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

    def arrive(self, content: Bytes) -> "asyncio.Future[None]":
        """The first bytes of the blob have arrived, and are about to be stored. The future is done when a reader has
        sent them, or if none will. Raises PartialBlobLost if other first bytes, which were not stored, may have been
        sent before.
        """
        if self.first_bytes:
            raise PartialBlobLost
        if self.readers and not self._is_small:
            self.first_bytes = FirstBytes(content)
            self._update()
        elif not self._first_sent.done():
            self._first_sent.set_result(None)
        return self._first_sent

    def grow(self, present: SpanSet) -> None:
        """The partial blob has these bytes now."""
        self.present = present
        if self.first_bytes and present.beginning >= len(self.first_bytes.content):
            self.first_bytes = None
        self._update()

    def complete(self) -> None:
        """The blob is whole and its digest is verified."""
        self._is_whole = True
        self.begin(None)
        self.total = self.present.length
        self._update()

    def fail(self, failure: BaseException) -> None:
        """End the download early, for all its readers."""
        if self.is_over:
            return
        self.failure = failure
        if not self.has_begun:
            self._begun.set_exception(failure)
            self._begun.exception()  # retrieved, or asyncio warns when no reader waits
        self._update()

    def _update(self) -> None:
        """Wake those who wait for a change, and close the files if the download is over and nobody needs them."""
        self._changed.set()
        self._changed = asyncio.Event()
        if self.is_over and not self.readers and not self._holders:
            while self._files:
                self._files.pop().close()
