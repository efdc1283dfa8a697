"""The upkeep of the shared store while replicas download and are killed: every order of their requests is possible."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from application.blobs import part_publisher
from application.blobs.part_publisher import PartPublisher
from application.ports.shared import FollowedLease, SharedContentDamaged, SharedPart
from application.upkeep import shared_upkeep
from application.upkeep.shared_content import SharedContent
from application.upkeep.shared_upkeep import SharedUpkeep
from domain.digest import Digest
from domain.names import Reference, RepositoryName, Tag
from domain.pins import Pin, PinnedImage
from domain.span_set import SpanSet
from domain.upstreams import Upstream
from tests.contracts.storage import HUB, QUAY
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.shared_leases import LEASE_SECONDS, FakeLeaseTable, FakeSharedLeases
from tests.fakes.shared_store import FakeSharedStore
from tests.fakes.shared_uses import FakeSharedUses

PART = 100
BLOB = 2 * PART
DAY = 24 * 3600
UNBOUNDED = 1 << 40
SHARD = "aa"
PROCESSES = 3
"""At a time. More of them make the interesting orders rarer."""
DIGEST = Digest("sha256", SHARD.ljust(64, "0"))
PINNED = PinnedImage(Pin(HUB.url, RepositoryName("team/app"), Reference(Tag("1"))), 1.0, DIGEST, {DIGEST: BLOB})


def make_small(replace: Callable[[object, str, object], None]) -> None:
    """Parts of some bytes, and one shard."""
    replace(part_publisher, "INLINE_BYTES", 0)
    replace(part_publisher, "part_size", lambda _: PART)
    replace(shared_upkeep, "SHARDS", (SHARD,))


@dataclass
class Process:
    """Waits before each request to the store or the index until a test lets it go on."""

    loop: asyncio.AbstractEventLoop
    waiting: list["asyncio.Future[None]"] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    is_dead: bool = False

    async def turn(self) -> None:
        if self.is_dead:
            raise asyncio.CancelledError
        future = self.loop.create_future()
        self.waiting.append(future)
        await future

    def kill(self) -> None:
        """It sends no request any more."""
        self.is_dead = True
        assert self.task
        self.task.cancel()
        for future in self.waiting:
            future.cancel()

    def paced(self, target: Any) -> Any:
        return Paced(target, self)


class Paced:
    """The same methods as `target`, each after a turn of the process."""

    def __init__(self, target: Any, process: Process) -> None:
        self._target = target
        self._process = process

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        async def call(*args: Any, **options: Any) -> Any:
            await self._process.turn()
            return await attribute(*args, **options)

        async def items(*args: Any) -> AsyncIterator[Any]:
            await self._process.turn()
            async for item in attribute(*args):
                yield item

        return items if name in {"records", "parts"} else call


class WholeDownload:
    """A download that has just ended: the parts that it uses of Download."""

    failure = None
    is_over = is_verified = is_public = False
    total = BLOB
    present = SpanSet.up_to(BLOB)

    digest = DIGEST

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.is_over = self.is_verified = True
        self.file = self

    def holding(self) -> Any:
        return _Held()

    async def read(self, start: int, stop: int) -> bytes:
        return bytes([start % 251]) * (stop - start)

    async def changed(self) -> None:
        await asyncio.Event().wait()


class _Held:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Cluster:
    """A shared tier, and the processes that use it."""

    def __init__(self, bound: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = StoppedClock()
        self.store = FakeSharedStore(self.clock)
        self.table = FakeLeaseTable(self.clock)
        self.uses = FakeSharedUses(self.clock)
        self.pins = MemoryPinIndex(self.clock)
        self.bound = bound
        self.processes: dict[int, tuple[Process, FakeSharedLeases]] = {}
        self._numbers = iter(range(1 << 30))

    # --- processes ---

    def start(self, work: Callable[[Process, FakeSharedLeases], Coroutine[Any, Any, None]]) -> int:
        number = next(self._numbers)
        process, leases = Process(self.loop), FakeSharedLeases(self.table, f"replica{number}")
        process.task = self.loop.create_task(work(process, leases))
        self.processes[number] = process, leases
        self._settle()
        return number

    def go_on(self, number: int, turns: int = 1, which: int = 0) -> None:
        """Let the process send some of the requests that it waits for."""
        process, _ = self.processes[number]
        for _ in range(turns):
            if process.waiting:
                process.waiting.pop(which % len(process.waiting)).set_result(None)
                self._settle()
        assert process.task
        if process.task.done():
            process.task.result()
            del self.processes[number]

    def finish(self, number: int) -> None:
        while number in self.processes:
            self.go_on(number)

    def kill(self, number: int) -> None:
        """As kill -9: no request is sent any more, and leases are not renewed."""
        process, leases = self.processes.pop(number)
        leases.stop_renewals()
        process.kill()
        self._settle()

    def _settle(self) -> None:
        async def pause() -> None:
            for _ in range(40):
                await asyncio.sleep(0)

        self.loop.run_until_complete(pause())

    def close(self) -> None:
        for number in list(self.processes):
            self.kill(number)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    # --- what they do ---

    def download(self, upstream: Upstream) -> int:
        """As SharedDownload does, with the publisher of production."""

        async def work(process: Process, leases: FakeSharedLeases) -> None:
            store = process.paced(self.store)
            held = await process.paced(leases).lease(upstream, DIGEST)
            if isinstance(held, FollowedLease):
                return
            lease = process.paced(held)
            record = await store.find(DIGEST)
            if record and record.serves(upstream):
                await lease.release(keep=True)
                return
            taken = {part async for part in received(store, held.found.parts)}
            events, uploads = RecordingEventSink(), asyncio.Semaphore(4)
            whole: Any = WholeDownload(upstream)
            await PartPublisher(whole, lease, store, events, uploads, record, taken).run()

        return self.start(work)

    def upkeep(self) -> int:
        async def work(process: Process, leases: FakeSharedLeases) -> None:
            uses = process.paced(self.uses.of_another_worker())
            content = SharedContent(
                process.paced(self.store),
                process.paced(leases),
                uses,
                process.paced(_Knowledge()),
                self.clock,
                RecordingEventSink(),
            )
            await SharedUpkeep(content, uses, process.paced(self.pins), self.bound, self.clock).run_if_due()

        return self.start(work)

    # --- what is true ---

    def damaged(self) -> list[tuple[str, SharedPart]]:
        """The parts that a record names and that are not there."""
        return [
            (str(digest)[:12], part)
            for digest, record in self.store.kept.items()
            for part in record.parts
            if part.key not in self.store.contents
        ]

    def unnamed(self) -> set[str]:
        """The parts that no record names."""
        return self.store.contents.keys() - {part.key for record in self.store.kept.values() for part in record.parts}


async def received(store: Any, parts: tuple[SharedPart, ...]) -> AsyncIterator[SharedPart]:
    """The parts of earlier leases that can be read, as far as there is none missing."""
    for part in parts:
        try:
            await store.get_part(part)
        except SharedContentDamaged:
            return
        yield part


class _Knowledge:
    """Implements SharedKnowledge."""

    async def forget_content(self, digests: list[Digest]) -> None: ...


def overlap(bound: int, seconds: float, sent: int, asked: int, *, is_killed: bool) -> tuple[bool, bool]:
    """A replica downloads what the store has from another upstream. When it has sent some requests, the upkeep begins;
    when that has sent `asked` some, the download goes on to its end, or another replica continues it; then the upkeep.
    `seconds`: how long the download has run. Returns whether the download and the upkeep had ended by then.
    """
    with closing(Cluster(bound)) as cluster:
        cluster.finish(cluster.download(HUB))
        replica = cluster.download(QUAY)
        cluster.go_on(replica, sent)
        is_whole = replica not in cluster.processes
        cluster.clock.advance(seconds)
        if is_killed and not is_whole:
            cluster.kill(replica)
            cluster.clock.advance(LEASE_SECONDS)
        upkeep = cluster.upkeep()
        cluster.go_on(upkeep, asked)
        is_kept = upkeep not in cluster.processes
        cluster.finish(cluster.download(QUAY) if is_killed else replica)
        assert cluster.damaged() == [], (sent, asked)
        cluster.finish(upkeep)
        assert cluster.damaged() == [], (sent, asked)
        assert bound < UNBOUNDED or DIGEST in cluster.store.kept, (sent, asked)
        return is_whole, is_kept


@pytest.mark.parametrize("bound", [PART, UNBOUNDED])
@pytest.mark.parametrize("seconds", [0, DAY + 1])
@pytest.mark.parametrize("is_killed", [False, True])
def test_records_have_their_parts_at_whatever_moment_of_a_download_the_upkeep_runs(
    monkeypatch: pytest.MonkeyPatch, bound: int, seconds: int, *, is_killed: bool
) -> None:
    make_small(monkeypatch.setattr)
    for sent in count():
        for asked in count():
            is_whole, is_kept = overlap(bound, seconds, sent, asked, is_killed=is_killed)
            if is_kept:
                break
        if is_whole:
            break
    assert (sent, asked) > (5, 5)


class Machine(RuleBasedStateMachine):
    """Replicas download, use content and are killed, while one or several of them look after the store and the content
    is pinned and unpinned. Each of their requests can come before or after each request of another one.

    No record ever names a part that is missing. With a large bound, no content that was stored is lost, and with any
    bound none that was pinned before the upkeep began. In the end, when nothing is pinned, the store has no more than
    the bound, and nothing that no record names.
    """

    cluster: Cluster

    @initialize(bound=st.sampled_from([PART, UNBOUNDED]), is_stored=st.booleans())
    def begin(self, bound: int, *, is_stored: bool) -> None:
        self.monkeypatch = pytest.MonkeyPatch()
        make_small(self.monkeypatch.setattr)
        self.cluster = Cluster(bound)
        if is_stored:
            self.cluster.finish(self.cluster.download(HUB))
        self.stored: set[Digest] = set()
        self.upkeeps: set[int] = set()
        self.is_protected = False

    @precondition(lambda self: len(self.cluster.processes) < PROCESSES)
    @rule(upstream=st.sampled_from([HUB, QUAY]))
    def download(self, upstream: Upstream) -> None:
        self.cluster.download(upstream)

    @precondition(lambda self: len(self.cluster.processes) < PROCESSES)
    @rule()
    def upkeep(self) -> None:
        self.upkeeps.add(self.cluster.upkeep())

    @rule()
    def pin(self) -> None:
        self.cluster.loop.run_until_complete(self.cluster.pins.keep(PINNED))
        # An upkeep that is running may have asked for the pins already.
        self.is_protected = self.is_protected or not self.upkeeps & self.cluster.processes.keys()

    @rule()
    def unpin(self) -> None:
        self.cluster.loop.run_until_complete(self.cluster.pins.forget(PINNED.pin))
        self.is_protected = False

    @rule()
    def use(self) -> None:
        self.cluster.loop.run_until_complete(self.cluster.uses.touch({DIGEST: self.cluster.clock.now()}))

    @precondition(lambda self: self.cluster.processes)
    @rule(data=st.data(), turns=st.integers(1, 12), which=st.integers(0, 1))
    def go_on(self, data: st.DataObject, turns: int, which: int) -> None:
        self.cluster.go_on(data.draw(st.sampled_from(sorted(self.cluster.processes))), turns, which)

    @precondition(lambda self: self.cluster.processes)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.cluster.finish(data.draw(st.sampled_from(sorted(self.cluster.processes))))

    @precondition(lambda self: self.cluster.processes)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.cluster.kill(data.draw(st.sampled_from(sorted(self.cluster.processes))))

    @rule(seconds=st.sampled_from([5, 3600, DAY + 1]))
    def wait(self, seconds: int) -> None:
        self.cluster.clock.advance(seconds)

    @invariant()
    def records_are_whole(self) -> None:
        assert self.cluster.damaged() == []

    @invariant()
    def nothing_is_lost(self) -> None:
        is_lost = not self.stored <= self.cluster.store.kept.keys()
        assert not (is_lost and (self.is_protected or self.cluster.bound == UNBOUNDED))
        self.stored = set(self.cluster.store.kept)

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        try:
            for number in list(self.cluster.processes):
                self.cluster.finish(number)
                self.records_are_whole()
                self.nothing_is_lost()
            self.pin()
            self.cluster.finish(self.cluster.upkeep())
            self.nothing_is_lost()
            self.unpin()
            for _ in range(2):  # parts of evicted content that a replica published are removed by the next run
                self.cluster.clock.advance(3 * DAY)
                self.cluster.table.entries.clear()  # the index forgets published parts after a day
                self.cluster.finish(self.cluster.upkeep())
            self.records_are_whole()
            self.nothing_is_lost()
            assert self.cluster.unnamed() == set()
            assert sum(record.size for record in self.cluster.store.kept.values()) <= self.cluster.bound
        finally:
            self.cluster.close()
            self.monkeypatch.undo()


TestEveryOrder = Machine.TestCase
TestEveryOrder.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
