"""The contract of SlowSteps."""

import asyncio
from collections.abc import Callable

import pytest

from adapters.storage.threads import Threads
from application.ports.slow_steps import SlowSteps
from tests.fakes.steps import InlineSteps

Maker = Callable[[], SlowSteps]


def _threads() -> SlowSteps:
    return Threads(2, "contract")


EACH = pytest.mark.parametrize("make", [_threads, InlineSteps])


@EACH
def test_the_result_of_the_step_is_returned(make: Maker) -> None:
    async def both() -> list[int]:
        steps = make()
        return list(await asyncio.gather(*(steps.run(lambda number=number: number * 2) for number in range(5))))

    assert asyncio.run(both()) == [0, 2, 4, 6, 8]


@EACH
def test_the_error_of_the_step_is_raised(make: Maker) -> None:
    def step() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        asyncio.run(make().run(step))


@EACH
async def test_no_step_begins_after_the_close(make: Maker) -> None:
    steps = make()
    await steps.run(lambda: None)
    steps.close()
    with pytest.raises(RuntimeError):
        await steps.run(lambda: None)
