"""RunningDownloads: the blobs that this process downloads, each once from each upstream, for any number of readers."""

import asyncio
from contextvars import copy_context
from functools import partial

from application.access.access_request import PullAccess
from application.blobs.download import Download
from application.blobs.fetch_blob import FetchBlob
from application.concurrency import LruCache
from application.ports.activity import DownloadState
from application.ports.content import StorageFull, StorageRefused
from application.ports.telemetry import EventSink
from application.ports.tracing import SpanKind, current_span, work_for
from application.ports.upstream import QueueWatch, watched_by
from domain.byte_ranges import ByteRange
from domain.cache_policy import CacheCapacity
from domain.digest import Digest
from domain.errors import UpstreamBroken, UpstreamContentChanged
from domain.events import CacheFull, CacheWriteFailed
from domain.ports import Clock
from domain.upstreams import Upstream

_ABANDONED_SECONDS = 300.0
"""How long a download continues without a reader. Its partial blob is kept for the next download."""
_UNREAD_AT_ONCE = 4
"""Maximum downloads without a reader in this process at a time."""
_LOOK_SECONDS = 5.0
_NO_SPACE_SECONDS = 60.0
_NO_SPACE_REMEMBERED = 1024

_Key = tuple[Upstream, Digest]


class RunningDownloads:
    """At most one download of a blob per upstream in this process; the store's lease limits it to one across processes.

    A download belongs to an upstream and a digest. The same blob may be downloaded from two upstreams at once: a client
    of the faster upstream does not wait for the slower one, and a wrong byte of one upstream does not spoil the other.
    """

    def __init__(self, fetch: FetchBlob, capacity: CacheCapacity, clock: Clock, events: EventSink) -> None:
        self._fetch = fetch
        self._capacity = capacity
        self._clock = clock
        self._events = events
        self._running: dict[_Key, Download] = {}
        self._tasks: dict[Download, asyncio.Task[None]] = {}
        self._no_space_until: LruCache[_Key, float] = LruCache(_NO_SPACE_REMEMBERED)

    def counts(self) -> tuple[int, int]:
        """The number of running downloads, and of the requests that read from them."""
        running = [one for one in self._running.values() if not one.is_over]
        return len(running), sum(one.readers for one in running)

    def states(self) -> list[DownloadState]:
        """The states of the running downloads, for the page."""
        return [one.state() for one in self._running.values() if not one.is_over]

    def running(self, upstream: Upstream, digest: Digest) -> Download | None:
        """The running download of the blob; None if there is none."""
        download = self._running.get((upstream, digest))
        return download if download and not download.is_over else None

    def start(
        self, access: PullAccess, digest: Digest, first_range: ByteRange | None = None, *, is_restart: bool = False
    ) -> Download:
        """A new download, which begins with this access: of the whole blob, or only of the parts that readers want, of
        which `first_range` is the first one. No download of the blob may be running.
        """
        download = Download(digest, access, first_range, is_restart=is_restart)
        download.started_at = download.unread_since = self._clock.now()
        download.left_unread = self._left_unread
        download.may_fetch_whole = lambda: len(self._unread()) < _UNREAD_AT_ONCE
        self._running[download.upstream, digest] = download
        # The context of the request that started it, whose access log line shows the response of the upstream.
        with watched_by(QueueWatch(lambda: download.readers > 0)):
            context = copy_context()
        source = access.source
        attributes = {
            "mirror.upstream": source.upstream.url,
            "mirror.repository": str(source.repository),
            "mirror.digest": str(digest),
        }
        download.span = current_span().child("download", SpanKind.INTERNAL, attributes)
        context.run(work_for, download.span)
        task = self._tasks[download] = asyncio.create_task(self._fetch(download), context=context)
        task.add_done_callback(partial(self._ended, download))
        return download

    def can_store(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether a download is worth starting: the cache is on, and there was space for this blob of the upstream when
        it was last downloaded, or that was some time ago.
        """
        no_space_until = self._no_space_until.get((upstream, digest))
        return self._capacity.max_bytes > 0 and (no_space_until is None or self._clock.now() >= no_space_until)

    def end_abandoned(self) -> None:
        """End the downloads that have had no reader for too long. Called at intervals."""
        for download in self._unread():
            if self._clock.now() >= download.unread_since + _ABANDONED_SECONDS:
                self._end(download)

    def _unread(self) -> list[Download]:
        """The downloads of whole blobs without a reader; first those that have had none for longest. Those of parts end
        without one.
        """
        unread = [one for one in self._running.values() if one.is_whole_wanted and not one.readers and not one.is_over]
        return sorted(unread, key=lambda download: download.unread_since)

    def _left_unread(self, download: Download) -> None:
        """If too many downloads run without a reader, end those that have had none for longest. Their partial blobs are
        kept.
        """
        download.unread_since = self._clock.now()
        for one in self._unread()[:-_UNREAD_AT_ONCE]:
            self._end(one)

    def _end(self, download: Download) -> None:
        # Only once: a second cancellation would interrupt the orderly end that the first one began.
        if (task := self._tasks.get(download)) and not task.cancelling():
            task.cancel()

    async def finished(self) -> None:
        """Returns when no download is running. Downloads without a reader end after the usual time."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=_LOOK_SECONDS)
            self.end_abandoned()

    async def close(self) -> None:
        """End all downloads."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, download: Download, task: "asyncio.Task[None]") -> None:
        key = download.upstream, download.digest
        self._tasks.pop(download, None)
        if self._running.get(key) is download:
            del self._running[key]
        failure = UpstreamBroken("the mirror stopped fetching this blob") if task.cancelled() else task.exception()
        if failure:
            download.fail(failure)
            download.span.fail(type(failure).__name__)
        download.span.set({"mirror.bytes": download.present.length})
        download.span.end()
        if isinstance(download.failure, StorageRefused):
            self._events.emit(
                CacheFull(str(download.digest))
                if isinstance(download.failure, StorageFull)
                else CacheWriteFailed(str(download.digest), str(download.failure))
            )
            self._no_space_until.put(key, self._clock.now() + _NO_SPACE_SECONDS)
        # Only once: an upstream whose responses never match would be asked forever.
        is_restarted = isinstance(download.failure, UpstreamContentChanged) and not download.is_restart
        if is_restarted and download.is_whole_wanted and not self.running(*key):
            self.start(download.accesses[0], download.digest, is_restart=True)
