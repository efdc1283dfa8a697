"""An upstream that can be held up and made to refuse, and what tests of the cache ask of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from application.ports.upstream import UpstreamRequest, UpstreamResponse
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken, UpstreamChallenged
from entrypoints.wiring.storage import Storage
from tests.application.support.service import IMAGE_CONTENT, LAYER, NAME, PRIVATE, Service
from tests.fakes.parts import memory_storage
from tests.fakes.storage import MemoryContentStore
from tests.fakes.upstream import FakeAnswer, FakeUpstream

ALICES = "Bearer upstream-token-of-alice="
ALICES_OTHER = "Bearer upstream-token-of-alice=="
BOBS = "Bearer upstream-token-of-bob="
NOBODYS = "Bearer upstream-token-of-="
BIG = bytes(range(256)) * 1200
BIG_DIGEST = Digest.of(BIG)
PIECE = 30_000


async def _at_once(_: UpstreamRequest) -> None:
    """Holds nothing up."""


@dataclass
class WatchedUpstream(FakeUpstream):
    """`hold` is waited for before anything is answered; what `refuse` gives is raised instead of an answer."""

    hold: Callable[[UpstreamRequest], Awaitable[None]] = _at_once
    refuse: Callable[[UpstreamRequest], RegistryError | None] = lambda _: None

    @asynccontextmanager
    async def open(self, fetch: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        await self.hold(fetch)
        if error := self.refuse(fetch):
            self.asked.append(fetch)
            raise error
        async with super().open(fetch) as answer:
            yield answer

    @property
    def gets(self) -> list[UpstreamRequest]:
        return [fetch for fetch in self.asked if not fetch.head]

    @property
    def heads(self) -> list[UpstreamRequest]:
        return [fetch for fetch in self.asked if fetch.head]


def watched(scheme: str = "bearer") -> WatchedUpstream:
    """With a public and a private repository, each with an image, a small layer and a large one."""
    upstream = WatchedUpstream(scheme, users={"alice": "right", "bob": "right"})
    for name in (str(NAME), str(PRIVATE)):
        upstream.put_manifest(name, "1", IMAGE_CONTENT)
        upstream.put_blob(name, LAYER)
        upstream.put_blob(name, BIG)
    upstream.alter = lambda answer: replace(answer, piece=PIECE)
    return upstream


def challenged(message: str = "authentication required") -> UpstreamChallenged:
    return UpstreamChallenged(message, challenges=(FakeUpstream("bearer").challenge(),))


@dataclass
class HeldAnswer(FakeAnswer):
    """Goes on after `held_at` bytes only when the gate is open; then breaks off if requested."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    held_at: int = 0
    breaks: bool = False

    async def pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), self.piece):
            if start >= self.held_at:
                await self.gate.wait()
                if self.breaks:
                    raise UpstreamBroken("the upstream closed the connection too early")
            yield self.content[start : start + self.piece]


def held(upstream: FakeUpstream, at: int = 2 * PIECE, *, breaks: bool = False) -> asyncio.Event:
    """The next large body stops there until the event is set; every later one comes at once."""
    gate, waiting = asyncio.Event(), [True]

    def alter(answer: FakeAnswer) -> FakeAnswer:
        if len(answer.content) < at or upstream.asked[-1].head or not waiting:
            return replace(answer, piece=PIECE)
        waiting.clear()
        return HeldAnswer(answer.metadata, answer.content, PIECE, None, gate, at, breaks)

    upstream.alter = alter
    return gate


@dataclass
class DrippingAnswer(FakeAnswer):
    """Waits for one gate after another, each before one more piece."""

    gates: list[asyncio.Event] = field(default_factory=list)

    async def pieces(self) -> AsyncIterator[bytes]:
        for number, start in enumerate(range(0, len(self.content), self.piece)):
            if 0 < number <= len(self.gates):
                await self.gates[number - 1].wait()
            yield self.content[start : start + self.piece]


def dripping(upstream: FakeUpstream, count: int) -> list[asyncio.Event]:
    """Bodies come piece by piece; an event for each of the first pieces but one."""
    gates = [asyncio.Event() for _ in range(count)]
    upstream.alter = lambda answer: DrippingAnswer(answer.metadata, answer.content, PIECE, gates=gates)
    return gates


def shared(storage: Storage) -> Storage:
    """The same storage as another process has it."""
    store: Any = storage.store
    other = MemoryContentStore(store.disk)
    return replace(storage, store=other, leases=other)


def processes(upstream: FakeUpstream, **settings: object) -> tuple[Service, Service]:
    """Two workers over one storage and one clock."""
    storage = memory_storage()
    first = Service(upstream, storage=storage, **settings)
    return first, Service(upstream, first.clock, shared(storage), **settings)


async def soon(condition: Callable[[], bool]) -> None:
    """Waits for what will be so in a moment."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing tells when it becomes so
            await asyncio.sleep(0.001)
