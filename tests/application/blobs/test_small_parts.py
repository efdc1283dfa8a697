"""What the cache is made of: batches, what is done once for many, bounded memory, work in the background."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.blobs.write_batches import WriteBatches
from application.concurrency import BackgroundTasks, LruCache, SingleFlight
from application.ports.content import StorageFull
from application.ports.telemetry import begin_record, current_record
from domain.span_set import SpanSet

MIB = 1024 * 1024


class Written:
    """A draft that batches are written to; `gate` holds each write up, `failure` ends it."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.present = SpanSet()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.at_once = 0
        self.grown: list[int] = []
        self.expects_more: Callable[[], bool] = lambda: False
        self.has_grown: Callable[[], None] = lambda: None

    @property
    def size(self) -> int:
        return self.present.length

    async def write(
        self, offset: int, pieces: deque[bytes], expects_more: Callable[[], bool], has_grown: Callable[[], None]
    ) -> int:
        assert offset == self.size
        self.expects_more, self.has_grown = expects_more, has_grown
        self.at_once += 1
        assert self.at_once == 1
        await self.gate.wait()
        self.at_once -= 1
        if self.failure:
            raise self.failure
        self.batches.append(b"".join(pieces))
        self.present = SpanSet.up_to(offset + len(self.batches[-1]))
        pieces.clear()
        return len(self.batches[-1])

    def batched(self) -> WriteBatches:
        partial_blob: Any = self
        return WriteBatches(partial_blob, 0, self.make_room, lambda: self.grown.append(self.size))

    async def held(self) -> WriteBatches:
        """Batches whose first byte is written. All further writes wait for the gate."""
        batches = self.batched()
        await batches.add(b"a")
        self.gate.clear()
        return batches

    async def full(self) -> tuple[WriteBatches, asyncio.Task[None]]:
        """Batches of which as many wait as may, and the call that waits to add another one."""
        batches = await self.held()
        for _ in range(3):
            await batches.add(b"-" * MIB)
        fourth = asyncio.create_task(batches.add(b"-" * MIB))
        await asyncio.sleep(0.02)
        assert not fourth.done()
        return batches, fourth

    async def make_room(self, _: int) -> None:
        """There is nothing to evict."""


@given(st.lists(st.integers(1, 3 * MIB // 2), max_size=8), st.booleans())
@settings(max_examples=30, deadline=None)
def test_all_that_was_added_is_written_in_order(sizes: list[int], pauses: bool) -> None:  # noqa: FBT001 - hypothesis
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def act() -> bytes:
        written = Written()
        batches = written.batched()
        for piece in pieces:
            await batches.add(piece)
            if pauses:
                await asyncio.sleep(0)
        await batches.finish()
        return b"".join(written.batches)

    assert asyncio.run(act()) == b"".join(pieces)


def test_a_small_piece_waits_for_others_but_not_for_long() -> None:
    async def act() -> list[bytes]:
        written = Written()
        batches = written.batched()
        for piece in (b"a", b"b", b"c"):
            await batches.add(piece)
            await asyncio.sleep(0.03)
        return written.batches

    assert asyncio.run(act()) == [b"a", b"b", b"c"]


def test_the_first_bytes_are_written_before_all_others() -> None:
    async def act() -> tuple[list[int], int]:
        written = Written()
        batches = written.batched()
        await batches.add(b"-" * MIB)
        first = written.grown[0]
        await batches.finish()
        return [len(batch) for batch in written.batches], first

    assert asyncio.run(act()) == ([64 * 1024, MIB - 64 * 1024], 64 * 1024)


async def test_a_cancelled_task_waits_for_the_running_write() -> None:
    written = Written()
    batches = await written.held()
    await batches.add(b"-" * MIB)
    ending = asyncio.create_task(batches.finish())
    for _ in range(3):
        await asyncio.sleep(0.01)
        ending.cancel()
    await asyncio.sleep(0.01)
    assert not ending.done()
    written.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert written.size == MIB + 1


async def test_add_waits_while_too_much_is_waiting_to_be_written() -> None:
    written = Written()
    batches, fourth = await written.full()
    written.gate.set()
    await fourth
    await batches.finish()
    assert written.size == 4 * MIB + 1
    assert written.grown[-1] == written.size


async def test_add_goes_on_and_readers_learn_of_new_bytes_while_the_write_runs() -> None:
    written = Written()
    batches, fourth = await written.full()
    written.present = SpanSet.up_to(MIB + 1)
    await asyncio.to_thread(written.has_grown)
    await fourth
    assert written.grown[-1] == MIB + 1
    assert written.at_once == 1, "the write still runs"
    written.gate.set()
    await batches.finish()
    assert written.size == 4 * MIB + 1


async def test_a_running_write_learns_when_nothing_more_comes() -> None:
    written = Written()
    batches = await written.held()
    await batches.add(b"-" * MIB)
    await asyncio.sleep(0)
    assert written.expects_more()
    ending = asyncio.create_task(batches.finish())
    await asyncio.sleep(0)
    assert not written.expects_more()
    written.gate.set()
    await ending


async def test_the_next_call_raises_what_a_write_has_raised() -> None:
    written = Written()
    written.failure = StorageFull()
    batches = written.batched()
    with pytest.raises(StorageFull):
        await batches.add(b"a")
    with pytest.raises(StorageFull):
        await batches.add(b"-" * MIB)
    with pytest.raises(StorageFull):
        await batches.finish()


def test_one_task_answers_all_identical_calls() -> None:
    async def act() -> tuple[list[int], int]:
        joined, count = SingleFlight(), 0

        async def work() -> int:
            nonlocal count
            count += 1
            await asyncio.sleep(0.01)
            return count

        first = await asyncio.gather(*(joined.do("key", work) for _ in range(5)), joined.do("other", work))
        return [*first, await joined.do("key", work)], count

    assert asyncio.run(act()) == ([2, 2, 2, 2, 2, 2, 3], 3)


def test_a_waiting_call_may_be_cancelled_and_failures_reach_all() -> None:
    async def act() -> list[Any]:
        joined = SingleFlight()

        async def fail() -> None:
            await asyncio.sleep(0.01)
            raise KeyError("no")

        waiting = [asyncio.create_task(joined.do("key", fail)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        alone = asyncio.create_task(joined.do("alone", fail))
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.sleep(0.02)
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(one) for one in asyncio.run(act())] == [asyncio.CancelledError, KeyError, KeyError]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=60), st.integers(0, 20))
def test_memory_is_bounded_and_forgets_the_oldest(puts: list[tuple[int, int]], bound: int) -> None:
    memory: LruCache[int, int] = LruCache(bound)
    for key, weight in puts:
        memory.put(key, weight, weight)
        held = {one: memory._entries[one][1] for one in memory._entries}
        assert memory._weight == sum(held.values()) <= bound
        assert memory.get(key) == (weight if weight <= bound else None)


def test_what_was_looked_at_is_forgotten_last() -> None:
    memory: LruCache[str, int] = LruCache(2)
    memory.put("a", 1)
    memory.put("b", 2)
    memory.get("a")
    memory.put("c", 3)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (1, None, 3)
    memory.pop("a")
    memory.pop("never there")
    memory.clear()
    assert memory.get("c") is None


def test_work_in_the_background_is_waited_for_and_writes_into_no_log_line() -> None:
    async def act() -> list[str]:
        background, done = BackgroundTasks(), []

        async def work() -> None:
            await asyncio.sleep(0.01)
            current_record().account = "somebody"
            done.append("done")

        async def fail() -> None:
            raise KeyError("its own business")

        record = begin_record()
        background.start(work())
        background.start(fail())
        await background.close()
        assert record.account is None
        return done

    assert asyncio.run(act()) == ["done"]
