"""Clients of a large blob whose upstream is slow. Time is virtual, so that the tests do not wait and do not depend on
the speed of the machine.
"""

import asyncio
import random
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.ports.upstream import UpstreamRequest
from domain.authorization import parse_authorization
from domain.byte_ranges import ByteRange
from domain.digest import Digest
from domain.errors import RegistryError
from domain.events import BytesFetched
from tests.application.support.crowd import Crowd
from tests.application.support.service import NAME, PRIVATE, REALM, bytes_of
from tests.application.support.watched import ALICES
from tests.fakes.upstream import FakeAnswer

MIB = 1024 * 1024
RATE = MIB
"""Bytes per second of one connection."""
LARGE = random.Random(11).randbytes(16 * MIB)  # noqa: S311 - bytes that are the same in each run
LARGE_DIGEST = Digest.of(LARGE)

Alter = Callable[[UpstreamRequest, FakeAnswer], FakeAnswer]
Refuse = Callable[[UpstreamRequest], RegistryError | None]


class _VirtualSelector(selectors.DefaultSelector):
    """Does not wait for a timer: the time jumps to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
            timeout = 0
        return super().select(timeout)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock shows the time of the last timer."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


async def each_slow(size: int) -> None:
    """Each connection has a rate of its own."""
    await asyncio.sleep(size / RATE)


def all_slow(rate: int = RATE) -> Callable[[int], Awaitable[None]]:
    """All connections share one line."""
    line = asyncio.Lock()

    async def pace(size: int) -> None:
        async with line:
            await asyncio.sleep(size / rate)

    return pace


class Line(Crowd):
    """`pace`: the pace of every body. `change`: changes the answer to a GET; `refuse` raises instead of one."""

    def __init__(self, *, pace: Callable[[int], Awaitable[None]] = each_slow, **settings: Any) -> None:
        super().__init__(**settings)
        for name in (str(NAME), str(PRIVATE)):
            self.upstream.put_blob(name, LARGE)
        self.pace = pace
        self.change: Alter = lambda _, answer: answer
        self.upstream.alter = self._alter

    def _alter(self, answer: FakeAnswer) -> FakeAnswer:
        fetch = self.upstream.asked[-1]
        paced = replace(answer, pace=self.pace)
        return paced if fetch.head else self.change(fetch, paced)

    async def read(self, header: str | None = ALICES, **others: Any) -> bytes:
        return await self.service.blob(header, **{"name": PRIVATE, "digest": LARGE_DIGEST} | others)

    async def sizes(self) -> AsyncIterator[int]:
        """The lengths of the pieces that a reader of the whole blob receives."""
        caller = Caller(parse_authorization(ALICES), REALM)
        async with self.service.parts.pull_blob().open(caller, BlobQuery(PRIVATE, LARGE_DIGEST)) as answer:
            async for piece in answer.pieces:
                yield len(bytes_of(piece))

    def reading(self, header: str | None = ALICES, **others: Any) -> "asyncio.Task[bytes]":
        """A reader that has started."""
        return asyncio.create_task(self.read(header, **others))

    @property
    def download(self) -> Any:
        return self.service.parts.downloads().running(self.service.parts.upstream(), LARGE_DIGEST)

    @property
    def stored(self) -> bytes | None:
        return self.service.parts.store().content.get(LARGE_DIGEST)

    @property
    def extra(self) -> list[UpstreamRequest]:
        return [fetch for fetch in self.upstream.gets if fetch.is_extra]

    @property
    def ranges(self) -> list[ByteRange | None]:
        return [fetch.byte_range for fetch in self.upstream.gets]

    @property
    def fetched(self) -> int:
        """Bytes that the upstream has sent."""
        return sum(event.count for event in self.service.events if isinstance(event, BytesFetched))

    async def received(self, size: int, at: int = 0) -> None:
        """Waits until the bytes between these offsets are present."""
        while not (download := self.download) or download.present.end_of(at) < max(at, size):  # noqa: ASYNC110 - nothing tells when it becomes so
            await asyncio.sleep(0.01)

    async def ended(self) -> None:
        """Waits until no download is running."""
        while self.download:  # noqa: ASYNC110 - nothing tells when it becomes so
            await asyncio.sleep(0.01)

    def run(self, action: Any) -> Any:
        async def whole() -> Any:
            await self.logged_in()
            return await action

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(self.service._finish(whole()))


def elapsed() -> float:
    """Seconds since the event loop was made."""
    return asyncio.get_running_loop().time()


async def seconds(action: Awaitable[Any]) -> tuple[Any, float]:
    """Its result, and the time that it took."""
    began = elapsed()
    got = await action
    return got, elapsed() - began


def once(matches: Callable[[UpstreamRequest], bool], change: Callable[[FakeAnswer], FakeAnswer]) -> Alter:
    """Changes the first answer to a request that matches."""
    left = [change]

    def alter(fetch: UpstreamRequest, answer: FakeAnswer) -> FakeAnswer:
        return left.pop()(answer) if left and matches(fetch) else answer

    return alter


def refused_once(matches: Callable[[UpstreamRequest], bool], error: RegistryError) -> Refuse:
    """Refuses the first request that matches."""
    left = [error]
    return lambda fetch: left.pop() if left and matches(fetch) else None
