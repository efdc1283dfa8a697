"""The shared store while the server is refused, silent, stopped, slow, killed or wrongly configured."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from adapters.shared.object_store import ObstoreSharedStore, open_object_store
from application.ports.shared import SharedContentDamaged, SharedPart, SharedRecord, SharedUnavailable
from domain.digest import Digest
from domain.events import SharedStoreAsked, SharedStoreLost, SharedStoreRecovered
from domain.part_layout import LARGEST_PART_BYTES, MIB
from tests.contracts.storage import HUB
from tests.e2e.support.processes import pause, resume
from tests.e2e.support.seaweedfs import SeaweedFS, seaweedfs
from tests.e2e.support.tcp_gate import TcpGate, tcp_gate
from tests.fakes.events import RecordingEventSink

CONTENT = b"layer bytes"
DIGEST = Digest.of(CONTENT)
RECORD = SharedRecord(len(CONTENT), frozenset({HUB.fingerprint}), is_public=False, content=CONTENT)
SMALL_LIMIT = 2.0
"""Seconds after which a small request is given up."""
SLACK = 1.0
"""Seconds that a busy machine may add."""
AT_ONCE = 0.2
TRIAL = 0.5
"""Seconds between trials in these tests."""
SLOW = 200_000
"""Bytes per second."""

pytestmark = pytest.mark.slow
_PREFIXES = count()


@dataclass
class Behind:
    """A store behind a gate, and the same store without the gate."""

    store: ObstoreSharedStore
    direct: ObstoreSharedStore
    gate: TcpGate
    server: SeaweedFS
    events: RecordingEventSink

    async def is_refused(self, call: Coroutine[Any, Any, object]) -> float:
        """The call raises SharedUnavailable. Returns the seconds until then."""
        began = time.monotonic()
        with pytest.raises(SharedUnavailable):
            await call
        return time.monotonic() - began

    async def found_again(self) -> SharedRecord | None:
        """The record, when the server can read it. After a pause it first has to find its own volumes."""
        async with asyncio.timeout(30):
            while True:
                with suppress(SharedUnavailable):
                    return await self.store.find(DIGEST)
                await asyncio.sleep(0.05)

    def states(self) -> list[type]:
        """What the log says of the store."""
        return [type(event) for event in self.events.events if not isinstance(event, SharedStoreAsked)]

    async def recovered(self) -> None:
        async with asyncio.timeout(20):
            while self.store.failure:  # noqa: ASYNC110 - nothing signals it
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@pytest.fixture
def run(server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Behind], Any]], None]:
    """Runs a test with the store."""
    address = f"{server.url}/faults-{next(_PREFIXES)}"

    def opened(environment: dict[str, str], events: RecordingEventSink) -> ObstoreSharedStore:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return ObstoreSharedStore(open_object_store(address), address, events, TRIAL)

    @asynccontextmanager
    async def behind() -> AsyncIterator[Behind]:
        events = RecordingEventSink()
        direct = opened(server.environment, RecordingEventSink())
        with tcp_gate(server.port) as gate:
            store = opened(server.environment_through(gate.port), events)
            await store.put(DIGEST, RECORD)
            try:
                yield Behind(store, direct, gate, server, events)
            finally:
                await store.close()
                await direct.close()

    def go(test: Callable[[Behind], Coroutine[Any, Any, None]]) -> None:
        async def inside() -> None:
            async with behind() as both:
                await test(both)

        asyncio.run(inside())

    return go


Run = Callable[[Callable[[Behind], Coroutine[Any, Any, None]]], None]


def test_a_refused_store_is_given_up_at_once_and_used_again_when_it_answers(run: Run) -> None:
    async def test(both: Behind) -> None:
        both.gate.refuse()
        assert await both.is_refused(both.store.find(DIGEST)) < SLACK
        assert both.store.failure.startswith("s3://")
        both.gate.open()
        await both.recovered()
        assert await both.store.find(DIGEST) == RECORD
        assert both.states() == [SharedStoreLost, SharedStoreRecovered]

    run(test)


def test_only_the_first_call_waits_for_a_silent_store(run: Run) -> None:
    async def test(both: Behind) -> None:
        both.gate.silence()
        assert SMALL_LIMIT <= await both.is_refused(both.store.find(DIGEST)) < SMALL_LIMIT + SLACK
        end = time.monotonic() + SMALL_LIMIT + 3 * TRIAL
        while time.monotonic() < end:  # during several trials
            part = both.store.put_part(HUB, DIGEST, "lease", 0, CONTENT)
            for call in (both.store.find(DIGEST), both.store.put(DIGEST, RECORD), both.store.drop(DIGEST), part):
                assert await both.is_refused(call) < AT_ONCE
            with pytest.raises(SharedUnavailable):
                _ = [found async for found in both.store.records()]
            await asyncio.sleep(0.1)
        both.gate.open()
        await both.recovered()
        assert await both.store.find(DIGEST) == RECORD

    run(test)


def test_concurrent_calls_wait_for_a_silent_store_together(run: Run) -> None:
    async def test(both: Behind) -> None:
        both.gate.silence()
        waited = await asyncio.gather(*(both.is_refused(both.store.find(DIGEST)) for _ in range(20)))
        assert max(waited) < SMALL_LIMIT + SLACK
        assert both.states() == [SharedStoreLost]

    run(test)


def test_a_stopped_server_is_given_up(run: Run) -> None:
    async def test(both: Behind) -> None:
        pause(both.server.process.pid)
        try:
            assert await both.is_refused(both.store.put(DIGEST, RECORD)) < SMALL_LIMIT + SLACK
        finally:
            resume(both.server.process.pid)
        assert await both.found_again() == RECORD

    run(test)


def test_a_part_that_stops_in_its_middle_is_given_up_after_two_seconds(run: Run) -> None:
    async def test(both: Behind) -> None:
        part = await both.direct.put_part(HUB, DIGEST, "lease", 0, bytes(LARGEST_PART_BYTES))
        both.gate.limit(8 * MIB)
        reading = asyncio.create_task(both.is_refused(both.store.get_part(part)))
        await asyncio.sleep(0.8)
        both.gate.silence()
        assert await reading < 0.8 + SMALL_LIMIT + SLACK

    run(test)


def test_a_large_part_from_a_slow_store_is_given_up(run: Run) -> None:
    async def test(both: Behind) -> None:
        part = await both.direct.put_part(HUB, DIGEST, "lease", 0, bytes(LARGEST_PART_BYTES))
        both.gate.limit(SLOW)
        assert await both.is_refused(both.store.get_part(part)) < 2 * SMALL_LIMIT + SLACK

    run(test)


def test_a_part_for_a_slow_store_is_given_up(run: Run) -> None:
    async def test(both: Behind) -> None:
        both.gate.limit(SLOW)
        upload = both.store.put_part(HUB, DIGEST, "lease", 0, bytes(MIB))
        assert await both.is_refused(upload) < 2 * SMALL_LIMIT + SLACK

    run(test)


def test_parts_pass_a_line_of_two_mebibytes_per_second(run: Run) -> None:
    async def test(both: Behind) -> None:
        content = os.urandom(8 * MIB)
        both.gate.limit(2 * MIB)
        part = await both.store.put_part(HUB, DIGEST, "lease", 0, content)
        assert await both.store.get_part(part) == content

    run(test)


def test_a_connection_that_the_server_closed_while_it_was_idle_is_replaced(run: Run) -> None:
    async def test(both: Behind) -> None:
        both.gate.cut()
        await asyncio.sleep(0.2)
        assert await both.store.find(DIGEST) == RECORD
        assert both.states() == []

    run(test)


def test_a_killed_server_is_used_again_with_its_content(run: Run) -> None:
    async def test(both: Behind) -> None:
        part = await both.store.put_part(HUB, DIGEST, "lease", 0, CONTENT)
        both.server.kill()
        assert await both.is_refused(both.store.find(DIGEST)) < SMALL_LIMIT + SLACK
        await asyncio.to_thread(both.server.start)
        assert await both.found_again() == RECORD
        assert await both.store.get_part(part) == CONTENT

    run(test)


def test_a_cancelled_call_is_no_failure_of_the_store(run: Run) -> None:
    async def test(both: Behind) -> None:
        both.gate.silence()
        task = asyncio.create_task(both.store.find(DIGEST))
        await asyncio.sleep(0.2)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        both.gate.open()
        assert both.store.failure == ""
        assert await both.store.find(DIGEST) == RECORD

    run(test)


def test_a_wrong_login_is_a_failure_whose_reason_contains_no_secret(
    server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")

    async def go() -> None:
        events = RecordingEventSink()
        store = ObstoreSharedStore(open_object_store(server.url), server.url, events)
        with pytest.raises(SharedUnavailable) as caught:
            await store.find(DIGEST)
        (lost,) = [event for event in events.events if isinstance(event, SharedStoreLost)]
        assert "another-secret" not in f"{caught.value} {lost} {store.failure}"
        await store.close()

    asyncio.run(go())


def test_an_address_with_http_needs_the_variable_that_allows_it(
    server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ALLOW_HTTP")

    async def go() -> None:
        store = ObstoreSharedStore(open_object_store(server.url), server.url, RecordingEventSink())
        with pytest.raises(SharedUnavailable):
            await store.find(DIGEST)
        await store.close()

    asyncio.run(go())


def test_a_lost_part_is_not_a_failure_of_the_store(run: Run) -> None:
    async def test(both: Behind) -> None:
        key = f"parts/sha256/{DIGEST.encoded[:2]}/{DIGEST.encoded}/{HUB.fingerprint}/lease/0"
        with pytest.raises(SharedContentDamaged):
            await both.store.get_part(SharedPart(key, 0, 1, DIGEST.encoded))
        assert both.store.failure == ""

    run(test)
