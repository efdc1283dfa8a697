"""What the page is told about running downloads."""

import asyncio

from application.ports.activity import DownloadState
from tests.application.support.crowd import Crowd
from tests.application.support.line import LARGE, LARGE_DIGEST, RATE, Line, all_slow
from tests.application.support.service import NAME, PRIVATE
from tests.application.support.watched import ALICES, BIG, BIG_DIGEST, BOBS, PIECE, held, processes, soon


def the_state(line: Line | Crowd) -> DownloadState:
    (state,) = line.service.parts.downloads().states()
    return state


def test_the_speed_is_measured_over_the_looks_of_some_seconds() -> None:
    line = Line(pace=all_slow())

    async def act() -> list[DownloadState]:
        reading, states = line.reading(), []
        await asyncio.sleep(1)
        for _ in range(8):
            states.append(the_state(line))
            await asyncio.sleep(1)
        assert await reading == LARGE
        return states

    first, *others = line.run(act())
    assert first.speed is None
    for state in others:
        assert state.speed is not None
        assert abs(state.speed - RATE) < 0.1 * RATE
        assert (state.digest, state.total, state.readers) == (LARGE_DIGEST, len(LARGE), 1)
    assert [state.present for state in others] == sorted({state.present for state in others})


def test_the_connections_are_those_that_fetch_now() -> None:
    line = Line(download_connections=4)

    async def act() -> set[int]:
        reading, seen = line.reading(), set()
        while not reading.done():
            seen |= {state.connections for state in line.service.parts.downloads().states()}
            assert all(number <= line.upstream.most_open for number in seen)
            await asyncio.sleep(0.1)
        assert await reading == LARGE
        return seen

    assert {1, 4} <= line.run(act())


def test_each_reader_counts_and_each_repository_that_a_caller_proved() -> None:
    crowd = Crowd()

    async def act() -> None:
        gate = held(crowd.upstream)
        readings = [crowd.read(), crowd.read()]
        await crowd.under_way()
        assert the_state(crowd).repositories == (PRIVATE,)
        readings.append(crowd.read(BOBS, name=NAME))
        await soon(lambda: the_state(crowd).repositories == (PRIVATE, NAME))
        assert (the_state(crowd).readers, the_state(crowd).has_more) == (3, False)
        gate.set()
        assert await asyncio.gather(*readings) == [BIG] * 3
        assert crowd.service.parts.downloads().states() == []

    crowd.run(act())


def test_of_many_repositories_some_are_named() -> None:
    crowd = Crowd()
    names = [type(NAME)(f"public/app{number}") for number in range(12)]
    for name in names:
        crowd.upstream.put_blob(str(name), BIG)

    async def act() -> None:
        gate = held(crowd.upstream)
        readings = [crowd.read()]
        await crowd.under_way()
        readings += [crowd.read(ALICES, name=name) for name in names]
        await soon(lambda: the_state(crowd).has_more)
        assert the_state(crowd).repositories == (PRIVATE, *names[:7])
        gate.set()
        assert await asyncio.gather(*readings) == [BIG] * 13

    crowd.run(act())


def test_a_worker_that_follows_another_process_has_no_connections_and_the_same_progress() -> None:
    crowd = Crowd("none")
    first, second = processes(crowd.upstream)

    async def act() -> None:
        gate = held(crowd.upstream)
        readings = [asyncio.create_task(one.blob(None, PRIVATE, BIG_DIGEST)) for one in (first, second)]
        await soon(lambda: _present(first) >= PIECE and _present(first) == _present(second))
        states = [one.parts.downloads().states()[0] for one in (first, second)]
        assert sorted(state.connections for state in states) == [0, 1]
        gate.set()
        assert await asyncio.gather(*readings) == [BIG, BIG]

    def _present(service: object) -> int:
        return sum(state.present for state in service.parts.downloads().states())  # type: ignore[attr-defined]

    first.run(act())
