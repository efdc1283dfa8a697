"""How many requests and bytes per second the page shows."""

import asyncio

from application.page.traffic import MeasureTraffic, TrafficRates
from application.ports.telemetry import Traffic
from tests.application.support.line import VirtualTimeLoop


class GrowingCounts:
    """Implements TrafficCounts: each second 10 thousand requests, 2 MB to clients and 300 kB from upstreams."""

    def traffic(self) -> Traffic:
        seconds = asyncio.get_running_loop().time()
        return Traffic(int(10_000 * seconds), int(2_000_000 * seconds), int(300_000 * seconds))


def rounded(rates: TrafficRates) -> tuple[int, int, int]:
    """In thousands."""
    return round(rates.requests / 1000), round(rates.sent / 1000), round(rates.fetched / 1000)


def run(action: object) -> None:
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(action)  # type: ignore[arg-type]
    finally:
        loop.close()


def test_the_first_look_waits_half_a_second_for_a_second_one() -> None:
    async def act() -> None:
        loop, measure = asyncio.get_running_loop(), MeasureTraffic(GrowingCounts())
        began = loop.time()
        assert rounded(await measure()) == (10, 2000, 300)
        assert round(loop.time() - began, 2) == 0.5
        await asyncio.sleep(2)
        began = loop.time()
        assert rounded(await measure()) == (10, 2000, 300)
        assert loop.time() == began

    run(act())


def test_many_viewers_do_not_disturb_each_other() -> None:
    async def viewer(measure: MeasureTraffic, number: int) -> set[tuple[int, int, int]]:
        seen = set()
        await asyncio.sleep(number / 37)
        for _ in range(20):
            seen.add(rounded(await measure()))
            await asyncio.sleep(0.3 + number / 50)
        return seen

    async def act() -> None:
        measure = MeasureTraffic(GrowingCounts())
        assert set().union(*await asyncio.gather(*(viewer(measure, number) for number in range(10)))) == {
            (10, 2000, 300)
        }

    run(act())


def test_after_a_long_time_without_a_look_the_rate_is_that_of_now() -> None:
    class Stopped(GrowingCounts):
        def traffic(self) -> Traffic:
            return Traffic(1000, 1000, 1000) if asyncio.get_running_loop().time() > 60 else Traffic(0, 0, 0)

    async def act() -> None:
        measure = MeasureTraffic(Stopped())
        await measure()
        await asyncio.sleep(120)
        assert await measure() == TrafficRates(0, 0, 0)

    run(act())
