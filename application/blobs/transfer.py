"""Transfer: fetches the missing bytes of one partial blob from one origin, over one or several connections."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from application.access.access_request import PullAccess
from application.access.provenance import Provenance
from application.access.read_permission import ReadPermissions
from application.blobs.body_writer import CHANGED, BodyWriter, SpaceForBlob
from application.blobs.download import Download, PartialBlobLost
from application.blobs.origins import BlobOrigin
from application.blobs.piece_plan import PiecePlan, PieceRequest
from application.blobs.retries import Retries
from application.concurrency import until_done
from application.eviction import Eviction
from application.ports.lease import WHOLE, DownloadLease
from application.ports.telemetry import EventSink
from application.ports.upstream import (
    RedirectTarget,
    Resource,
    ResponseMetadata,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.byte_ranges import ByteRange, Span
from domain.cache_policy import should_download_whole
from domain.connection_count import ConnectionCount
from domain.documents import one_line
from domain.errors import (
    ContentUnknown,
    Denied,
    MirrorFault,
    RangeUnsatisfiable,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamContentChanged,
    UpstreamUnavailable,
    UpstreamWrongPart,
)
from domain.events import BodiesReceived, BytesFetched, DownloadResumed, DownloadStarted
from domain.ports import Clock
from domain.records import ContentKind, ContentLocation
from domain.span_set import END_UNKNOWN
from domain.upstreams import Source

_TICK_SECONDS = 0.02
"""How often the transfer looks for wants of other processes, and whether another connection is worthwhile."""
_IDLE_SECONDS = 1.0
"""How long a transfer of parts waits for the next reader."""
_ANOTHER_TRY_SECONDS = 0.25
"""The pause after a failure beside other running connections."""
_PAUSE_FOR_READERS_SECONDS = 2.0
"""The pause after a failure of a connection for a reader of a part."""
_FOR_READERS = 16
"""The most connections for readers of parts that no other connection fetches soon."""
_FIRST_BYTES = 64 * 1024
"""A reader receives so many bytes at the beginning of the blob before they are stored."""
_FIRST_SECONDS = 0.002
"""How long the transfer waits for a reader to send them."""
_ALL = ByteRange(0, None)
_REFUSALS = (UpstreamChallenged, Denied, ContentUnknown)
_HEALED = (*_REFUSALS, UpstreamUnavailable, MirrorFault)
"""Failures after which a transfer goes on."""


@dataclass(eq=False)
class _Connection(PieceRequest):
    """`byte_range`: the Range of the request; None for the whole blob. `target`: the redirect target to ask first.
    `is_extra`: the download does not need it, it only makes the download faster. `body_stop`: where its body ends.
    """

    access: PullAccess = field(kw_only=True)
    byte_range: ByteRange | None = None
    target: RedirectTarget | None = None
    is_extra: bool = False
    body_stop: int = END_UNKNOWN
    answer: UpstreamResponse | None = None
    task: asyncio.Task[None] = field(init=False)

    @property
    def is_beside(self) -> bool:
        """The download can go on without it."""
        return self.is_extra or self.is_for_reader


class Transfer:
    """It starts with one request. If that takes long, further connections fetch pieces of the rest, the lowest offset
    first, while this makes the download faster. Bytes that a reader of a part needs at once are fetched by a connection
    of their own. The last connection that runs resumes after failures; a failure beside other connections only reduces
    their number.
    """

    def __init__(
        self,
        download: Download,
        lease: DownloadLease,
        origin: BlobOrigin,
        permissions: ReadPermissions,
        eviction: Eviction,
        provenance: Provenance,
        events: EventSink,
        retries: Retries,
        clock: Clock,
    ) -> None:
        self._download = download
        self._lease = lease
        self._partial_blob = lease.partial_blob
        self._origin = origin
        self._permissions = permissions
        self._provenance = provenance
        self._events = events
        self._retries = retries
        self._clock = clock
        self._access, self._accesses_used = download.accesses[0], 1
        self.source: Source = self._access.source
        """The repository of the last response."""
        self._refusal: RegistryError | None = None
        """The upstream refuses all accesses. No further request is sent."""
        self._running: list[_Connection] = []
        self._count = ConnectionCount(1 if download.is_restart else origin.connections)
        self._plan = PiecePlan(download, self._count, self._running)
        self._can_divide = not download.is_restart
        """Parts of the blob may be requested separately."""
        self._asks_whole = False
        """The answers to Range requests were wrong, also without other connections, so no more are sent."""
        self.is_divided = len(self._partial_blob.present.spans) > 1
        """The blob consists of parts that were requested separately, and not of one body and its resumptions."""
        self._has_answered = False
        self._target: RedirectTarget | None = None
        self._etag: str | None = None
        self._is_at_end = False
        """A body of unknown length was received to its end."""
        self._present_at_start = self._partial_blob.present.length
        self._space = SpaceForBlob(download, self._partial_blob, eviction)
        self._received = 0
        """Bytes of all bodies."""
        self._present_before = self._present_at_start
        """The number of bytes that were present at the last failure."""
        self._woken = asyncio.Event()
        self._is_counted = False
        """The metrics count this transfer as a download of the whole blob."""
        self._unwanted_since: float | None = None
        self._not_before = 0.0
        """The loop time before which no request is sent."""
        self._no_readers_before = 0.0
        """The same for requests for readers of parts."""
        self._no_request_at: int | None = None
        """No request is sent while this number of bytes is present."""

    async def run(self) -> None:
        """Returns when all bytes are present. Raises the reason if the transfer ends early; OriginLost if another
        origin may have the rest.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._download.wants_changed = self._woken.set
        self._download.connections = self._running.__len__
        self._download.expect(self._partial_blob.total)
        try:
            while not self._is_complete:
                self._start_connections(loop.time())
                timer = loop.call_later(_TICK_SECONDS, self._woken.set)
                await self._woken.wait()
                timer.cancel()
                self._woken.clear()
                self._look_around(loop.time())
                for connection in [one for one in self._running if one.task.done()]:
                    self._running.remove(connection)
                    if error := connection.task.exception():
                        await self._recover(connection, error, loop.time())
                    else:
                        self.source = connection.access.source
        finally:
            if self._origin.is_upstream and self._received:
                seconds = loop.time() - began
                self._events.emit(BodiesReceived(self._download.upstream.url, self._received, seconds))
            self._download.wants_changed = lambda: None
            self._download.connections = lambda: 0
            for connection in self._running:
                connection.task.cancel()
            for connection in self._running:
                await until_done(connection.task)
                if not connection.task.cancelled():
                    connection.task.exception()  # retrieved, or asyncio warns

    @property
    def _is_complete(self) -> bool:
        total = self._download.total
        is_covered = total is not None and self._partial_blob.present.covers(Span(0, total))
        return self._is_at_end or (is_covered and not self._running)

    def _look_around(self, now: float) -> None:
        """Learn what readers want and how fast the connections are. Raises UpstreamBroken if no reader has wanted
        anything for some time.
        """
        download, total = self._download, self._download.total
        self._plan.wanted_elsewhere = elsewhere = self._lease.wanted()
        download.is_whole_wanted = download.is_whole_wanted or elsewhere.covers(WHOLE)
        if total is not None and not download.is_whole_wanted:
            requests = download.part_requests + (self._present_at_start > 0) + len(elsewhere.spans)
            is_worthwhile = should_download_whole(requests, min(self._plan.asked(), total), total)
            download.is_whole_wanted = is_worthwhile and download.may_fetch_whole()
        if download.is_whole_wanted and self._origin.is_upstream and not self._is_counted:
            self._is_counted = True
            self._events.emit(DownloadStarted())
        if total is not None and self._can_divide:
            receiving = sum(not one.is_for_reader and one.received > 0 for one in self._running)
            missing = total - self._partial_blob.present.length
            unread = sum(one.answer.unread() for one in self._running if one.answer)
            valid = self._access.identity.ends_at - self._clock.now()
            self._count.observe(now, self._received, receiving, missing, unread, valid)
        if download.is_whole_wanted or download.readers or elsewhere.spans:
            self._unwanted_since = None
        elif self._unwanted_since is None:
            self._unwanted_since = now
        elif now >= self._unwanted_since + _IDLE_SECONDS:
            unwanted = UpstreamBroken("no client reads this download any more")
            download.fail(unwanted)  # at once, so that the next reader starts a new download
            raise unwanted

    # --- requests ---

    def _start_connections(self, now: float) -> None:
        self._take_other_access()
        if self._refusal and not self._running:
            raise self._refusal
        if not self._may_request(now):
            return
        total = self._download.total
        if total is None or not self._download.has_begun:
            if not self._running:
                self._start_first(total)
            return
        while (number := self._number(is_for_reader=False)) < self._count.allowed:
            if not (piece := self._plan.next_piece(total, now)):
                break
            self._start(piece, is_extra=number > 0)
        is_free = self._can_divide and now >= self._no_readers_before
        while is_free and (piece := self._plan.for_waiting_reader(total, now)):
            self._start(piece, is_for_reader=True)
            is_free = self._number(is_for_reader=True) < _FOR_READERS

    def _may_request(self, now: float) -> bool:
        if self._refusal or now < self._not_before:
            return False
        if not self._running:
            return True
        return self._can_divide and self._no_request_at != self._partial_blob.present.length

    def _number(self, *, is_for_reader: bool) -> int:
        return sum(one.is_for_reader == is_for_reader for one in self._running)

    def _start_first(self, total: int | None) -> None:
        """The first request: its answer tells the length of the blob, and that the upstream lets the caller read it."""
        present, first = self._partial_blob.present, self._download.first_range
        if first and total is None and not self._download.is_whole_wanted:
            if not self._download.has_begun:
                self._start(Span(0, END_UNKNOWN), byte_range=first)
            return  # if the upstream does not state the length, readers of parts are served without the cache
        wanted = Span(0, END_UNKNOWN if total is None else total)
        if first and total is not None:
            try:
                wanted = first.of(total)
            except RangeUnsatisfiable:  # the upstream decides whether the caller learns the length
                self._start(Span(0, total), byte_range=first)
                return
        if missing := present.missing(wanted):
            self._start(missing[0])
        else:
            self._download.begin(None)

    def _start(
        self, span: Span, *, is_extra: bool = False, is_for_reader: bool = False, byte_range: ByteRange | None = None
    ) -> None:
        is_rest = span.stop in {END_UNKNOWN, self._download.total}
        if not byte_range and not self._asks_whole and (span.start or not is_rest):
            byte_range = ByteRange(span.start, None if is_rest else span.stop - 1)
        self.is_divided = self.is_divided or bool(self._running)
        connection = _Connection(
            span.start,
            span.stop,
            span.start,
            is_for_reader=is_for_reader,
            access=self._access,
            byte_range=byte_range,
            target=self._target,
            is_extra=is_extra,
        )
        self._running.append(connection)
        connection.task = asyncio.create_task(self._receive(connection))
        connection.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio warns when the transfer ended for another reason
        self._woken.set()

    async def _receive(self, connection: _Connection) -> None:
        """Send the request, and write the bytes that it brings."""
        loop = asyncio.get_running_loop()
        resource = Resource.blob(connection.access.source, self._download.digest)
        request = UpstreamRequest(
            resource,
            connection.access.credentials,
            byte_range=connection.byte_range,
            is_extra=connection.is_extra,
            target=connection.target,
        )
        try:
            async with self._origin.open(request) as answer, AsyncExitStack() as stack:
                connection.answer = answer
                position = self._start_of_body(connection, answer)
                writer = BodyWriter(self._space)
                stack.push_async_callback(writer.finish)  # also after an interruption: the received bytes are kept
                async for piece in answer.pieces():
                    self._count_bytes(connection, len(piece), loop.time())
                    if position + len(piece) >= connection.stop:
                        connection.stop = self._plan.continuation(connection, connection.body_stop, loop.time())
                    part = piece[: max(0, connection.stop - position)]
                    connection.position = position + len(part)
                    if not position and not self._partial_blob.present:
                        # To receive and store the next megabytes takes processor time, for which a reader would wait.
                        await asyncio.wait([self._download.arrive(part[:_FIRST_BYTES])], timeout=_FIRST_SECONDS)
                    await writer.add(position, part)
                    position += len(part)
                    if position >= connection.stop:
                        break
        except RangeUnsatisfiable as outside:
            self._check_end(connection, outside)
        if self._download.total is None:
            self._is_at_end = connection.stop == END_UNKNOWN
        elif connection.position < min(connection.stop, self._download.total):
            raise UpstreamBroken("the upstream stopped sending the blob before its end")

    def _start_of_body(self, connection: _Connection, answer: UpstreamResponse) -> int:
        """The offset in the blob at which the body begins. Raises UpstreamWrongPart or UpstreamContentChanged if it is
        not the body that was requested.
        """
        download, metadata, span = self._download, answer.metadata, answer.metadata.span
        total = metadata.size if span is None else metadata.whole_size
        self._check_part(connection, metadata)
        if download.total is not None and total not in {None, download.total}:
            if span and download.has_begun:
                raise UpstreamWrongPart("the upstream sent a part of a blob with another length")
            raise UpstreamContentChanged(CHANGED)
        self._learn(connection, answer, total)
        body = span or Span(0, END_UNKNOWN if download.total is None else download.total)
        ignores_ranges = span is None and (self._asks_whole or connection.byte_range is not None)
        connection.start = connection.position = body.start
        connection.body_stop = body.stop
        if ignores_ranges or connection.stop == END_UNKNOWN:
            connection.stop = body.stop
        if ignores_ranges:
            self._stop_dividing()
        return body.start

    def _learn(self, connection: _Connection, answer: UpstreamResponse, total: int | None) -> None:
        """What the head of a response says about the blob, the caller and the upstream."""
        download, access = self._download, connection.access
        is_asked_now = answer.target is None or answer.target != connection.target
        is_upstream = self._origin.is_upstream
        if is_upstream and is_asked_now and not connection.is_beside:
            # An earlier signed address proves nothing about the caller now.
            self._permissions.record(access, _location(access, download), answer.metadata)
        is_public = self._provenance.is_public(access) if is_upstream else self._origin.is_public
        download.is_public = download.is_public and is_public
        if not self._has_answered:
            self._can_divide = self._can_divide and answer.metadata.accepts_ranges
            self._has_answered = True
        download.begin(answer.metadata if is_upstream else None, total)
        if download.total is None and connection.byte_range and connection.byte_range is download.first_range:
            raise PartialBlobLost  # a blob of unknown length is stored only from its beginning on
        self._target, self._etag = answer.target, answer.metadata.etag or self._etag
        self._partial_blob.total = download.total
        self._space.require(download.total)

    def _check_part(self, connection: _Connection, metadata: ResponseMetadata) -> None:
        """Raises UpstreamWrongPart if the response is not the requested part."""
        asked, span = connection.byte_range, metadata.span
        if span is None:
            # Beside others, it would bring bytes that another request brings, too.
            if asked and (connection.is_beside or len(self._running) > 1):
                raise UpstreamWrongPart("the upstream sent the whole blob instead of a part")
            return
        try:
            is_answer = (asked or _ALL).is_answered_by(span, metadata.whole_size)
        except RangeUnsatisfiable:
            is_answer = False
        is_other = connection.is_beside and self._etag and metadata.etag not in {None, self._etag}
        if not is_answer or is_other or metadata.size not in {None, span.length}:
            raise UpstreamWrongPart("the upstream sent a different byte range than the mirror requested")

    def _check_end(self, connection: _Connection, outside: RangeUnsatisfiable) -> None:
        """The upstream answered that it has none of the requested bytes. Raises the reason why this is not the end."""
        total, known = self._download.total, self._partial_blob.present.beginning
        is_clients = connection.byte_range is self._download.first_range  # the range is outside, and not its rest
        if not self._download.has_begun and (is_clients or not known):
            raise outside
        if total is not None and (connection.is_beside or outside.size in {None, total}):
            raise UpstreamWrongPart("the upstream refused a byte range of the blob")
        if outside.size not in {None, known}:
            raise UpstreamContentChanged(CHANGED)

    def _count_bytes(self, connection: _Connection, count: int, now: float) -> None:
        if self._origin.is_upstream:
            self._events.emit(BytesFetched(count))
        connection.first_byte_at = connection.first_byte_at or now
        connection.received += count
        self._received += count
        self._download.received += count

    async def _recover(self, connection: _Connection, error: BaseException, now: float) -> None:
        """Decide how the transfer goes on after a failed request. Raises the error if it cannot."""
        download = self._download
        if isinstance(error, MirrorFault) and connection.is_extra:
            self._count.one_less(now)
            self._not_before = now + _ANOTHER_TRY_SECONDS
            return
        is_healed = isinstance(error, RegistryError if connection.is_beside else _HEALED)
        if not isinstance(error, RegistryError) or not is_healed or isinstance(error, UpstreamContentChanged):
            raise error
        if isinstance(error, _REFUSALS):
            await self._permissions.refused(connection.access, _location(connection.access, download), error)
            self._use_next_access(connection.access, error)
            self._stop_dividing()
            self._plan.passes_over = True
        if isinstance(error, UpstreamWrongPart):
            self._asks_whole = not self._running
            self._stop_dividing()
        if not download.has_begun:
            raise error
        self._count.halve(now)
        self._not_before = now + self._pause_after(error)
        if connection.is_for_reader:
            self._no_readers_before = now + _PAUSE_FOR_READERS_SECONDS
        self._events.emit(DownloadResumed(download.upstream.url, str(download.digest), one_line(error.message)))

    def _stop_dividing(self) -> None:
        """From now on there is one request at a time, because it may bring bytes that it was not asked for."""
        self._can_divide = False
        self._count.stay_at_one()

    def _pause_after(self, error: RegistryError) -> float:
        """The seconds until the next request. Raises the error if no other request may be sent."""
        if isinstance(error, _REFUSALS):
            return 0.0
        # Bytes that the upstream sends again are no progress: it could break off at the same byte for ever.
        present = self._partial_blob.present.length
        if self._running:
            # While no byte arrives, no request takes the place of the failed one: so the last one fails alone.
            self._no_request_at = present
            return _ANOTHER_TRY_SECONDS
        has_progressed, self._present_before = present > self._present_before, present
        if isinstance(error, UpstreamUnavailable):
            return self._retries.pause(error, has_progressed=has_progressed)
        raise error

    def _use_next_access(self, refused: PullAccess, refusal: RegistryError) -> None:
        """The access of another reader may still be valid: a token may expire while a large blob is downloaded."""
        self._target = None
        if refused is self._access:
            self._refusal = refusal
            self._take_other_access()

    def _take_other_access(self) -> None:
        """Use the next access that readers have offered, if there is one."""
        if self._refusal and self._accesses_used < len(self._download.accesses):
            self._access, self._refusal = self._download.accesses[self._accesses_used], None
            self._accesses_used += 1


def _location(access: PullAccess, download: Download) -> ContentLocation:
    return ContentLocation(access.source, ContentKind.BLOB, download.digest)
