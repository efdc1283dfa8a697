"""Origins of the bytes of a blob: the upstream, and what other replicas have published in the shared store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from application.ports.shared import (
    SharedContentDamaged,
    SharedPart,
    SharedProgress,
    SharedUnavailable,
)
from application.ports.telemetry import EventSink
from application.ports.upstream import (
    RedirectTarget,
    ResponseMetadata,
    UpstreamRegistry,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.byte_ranges import Span
from domain.digest import Bytes
from domain.errors import RangeUnsatisfiable
from domain.events import SharedBytesReceived
from domain.value import Value

_LOOK_SECONDS = 0.02
"""How often the progress of another replica is read while the next part is missing."""
_SILENCE_SECONDS = 10.0
"""After this time without a new part, the download goes on without the other replica."""
_AHEAD = 3
"""Parts that are fetched before they are needed: one request does not fill the line to a distant store."""
_KEPT = 1 + _AHEAD
"""Parts of one blob in memory."""


GetPart = Callable[[SharedPart], Awaitable[bytes]]
"""As SharedStore.get_part."""


class OriginLost(Exception):
    """The origin does not have the next bytes. The download goes on with another one."""


class UpstreamOrigin:
    """The upstream itself. Its response proves that the caller may read the blob, and that its bytes are public if the
    caller is anonymous.
    """

    is_upstream = True
    is_public = False

    def __init__(self, registry: UpstreamRegistry, connections: int) -> None:
        """`connections`: the most requests at a time, besides those for readers of parts."""
        self.connections = connections
        self.open = registry.open


class PartsInMemory:
    """The parts that all downloads of this worker have read from the shared store and still keep."""

    def __init__(self, limit: int) -> None:
        """`limit`: beyond this number of parts, none are fetched before they are needed."""
        self._limit = limit
        self.count = 0

    @property
    def are_few(self) -> bool:
        return self.count < self._limit


class SharedOrigin:
    """The parts that other replicas have published. It fetches each part whole and checks its hash before it passes on
    a byte of it.
    """

    is_upstream = False
    connections = 1

    def __init__(
        self,
        get_part: GetPart,
        look: Callable[[], Awaitable[SharedProgress]],
        events: EventSink,
        in_memory: PartsInMemory,
        *,
        is_public: bool = False,
    ) -> None:
        """`look`: the current progress of the replica that publishes the parts; raises SharedUnavailable. `is_public`:
        all bytes are known to be public.
        """
        self._get_part = get_part
        self._look = look
        self._events = events
        self._in_memory = in_memory
        self.is_public = is_public
        self._progress = SharedProgress((), None, is_held=True)
        self._loads: dict[SharedPart, asyncio.Task[bytes]] = {}
        """The parts that were fetched last, because readers of parts often want bytes of the same one."""
        self.received: set[SharedPart] = set()
        self.is_damaged = False
        """A part was missing or wrong in the store."""
        self.ends_sharing = False
        """The upstream must answer: the store does not, or the replica that has the lease publishes nothing, or the
        requested bytes are outside the blob, and only the upstream may tell that to the caller.
        """

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """As UpstreamRegistry.open. Also raises OriginLost, as does reading the response."""
        total = await self._total()
        asked = request.byte_range
        try:
            span = asked.of(total) if asked else Span(0, total)
        except RangeUnsatisfiable as error:
            self.ends_sharing = True
            raise OriginLost("the blob has none of the requested bytes") from error
        metadata = ResponseMetadata(
            size=span.length,
            span=span if asked else None,
            whole_size=total if asked else None,
            accepts_ranges=not self._progress.is_held,
        )
        yield _SharedResponse(metadata, span, self._part_of)

    def close(self) -> None:
        """Give up the parts that are still being fetched."""
        for part, load in list(self._loads.items()):
            load.cancel()
            self._forget(part)

    async def _total(self) -> int:
        while self._progress.total is None:
            await self._grown()
        return self._progress.total

    async def _part_of(self, offset: int) -> tuple[SharedPart, bytes]:
        """The part that contains this byte of the blob. Waits until it is published. Raises OriginLost."""
        while (part := self._published(offset)) is None:
            await self._grown()
        if part not in self._loads:
            self._load(part)
        load = self._loads[part]
        self._load_ahead(part.stop)
        try:
            content = await asyncio.shield(load)
        except SharedContentDamaged as error:
            self.is_damaged = True
            raise OriginLost(str(error)) from error
        except SharedUnavailable as error:
            self.ends_sharing = True
            raise OriginLost(str(error)) from error
        self.received.add(part)
        return part, content

    def _load_ahead(self, offset: int) -> None:
        """Fetch the parts that are needed next, if they are published and there is memory."""
        for _ in range(_AHEAD):
            following = self._published(offset)
            if following is None or not self._in_memory.are_few:
                return
            if following not in self._loads:
                self._load(following)
            offset = following.stop

    def _load(self, part: SharedPart) -> None:
        while len(self._loads) >= _KEPT:
            self._forget(next(iter(self._loads)))
        load = self._loads[part] = asyncio.create_task(self._fetched(part))
        load.add_done_callback(_retrieved)
        self._in_memory.count += 1

    def _forget(self, part: SharedPart) -> None:
        del self._loads[part]
        self._in_memory.count -= 1

    async def _fetched(self, part: SharedPart) -> bytes:
        content = await self._get_part(part)
        self._events.emit(SharedBytesReceived(len(content)))
        return content

    def _published(self, offset: int) -> SharedPart | None:
        return next((part for part in self._progress.parts if part.offset <= offset < part.stop), None)

    async def _grown(self) -> None:
        """Returns when there are more parts, or the length is known. Raises OriginLost if that will not happen."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _SILENCE_SECONDS
        known = self._progress
        while self._progress.parts == known.parts and self._progress.total == known.total:
            if not self._progress.is_held:
                raise OriginLost("no replica fetches the blob any more")
            if loop.time() >= end:
                self.ends_sharing = True
                raise OriginLost("the replica that fetches the blob has published nothing for some time")
            try:
                self._progress = await self._look()
            except SharedUnavailable as error:
                self.ends_sharing = True
                raise OriginLost(str(error)) from error
            if self._progress == known:
                await asyncio.sleep(_LOOK_SECONDS)


def _retrieved(task: "asyncio.Task[bytes]") -> None:
    if not task.cancelled():
        task.exception()  # or asyncio warns if nobody waited for the part any more


BlobOrigin = UpstreamOrigin | SharedOrigin


class _SharedResponse(Value, frozen=True):
    """Implements UpstreamResponse."""

    metadata: ResponseMetadata
    span: Span
    part_of: Callable[[int], Awaitable[tuple[SharedPart, bytes]]]
    target: RedirectTarget | None = None

    def unread(self) -> int:
        return 0

    async def pieces(self) -> AsyncIterator[Bytes]:
        position = self.span.start
        while position < self.span.stop:
            part, content = await self.part_of(position)
            stop = min(part.stop, self.span.stop)
            yield memoryview(content)[position - part.offset : stop - part.offset]
            position = stop

    async def read(self, limit: int) -> bytes:  # noqa: ARG002 - a blob is never read at once
        return b"".join([bytes(piece) async for piece in self.pieces()])
