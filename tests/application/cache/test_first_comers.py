"""The first fetches; the others wait, once."""

import asyncio

import pytest

from application.cache.first_comers import FirstComers


def test_the_others_wait_for_the_first_and_no_longer() -> None:
    log: list[str] = []

    async def come(comers: FirstComers, name: str, key: str = "a") -> None:
        async with comers.turn(key) as has_waited:
            log.append(f"{name} {has_waited}")
            await asyncio.sleep(0.01)
            log.append(f"{name} leaves")

    async def act() -> None:
        comers = FirstComers()
        await asyncio.gather(come(comers, "one"), come(comers, "two"), come(comers, "three"))
        await come(comers, "four")

    asyncio.run(act())
    assert log[:2] == ["one False", "one leaves"]
    assert log[2:4] == ["two True", "three True"]  # both at once
    assert log[-2:] == ["four False", "four leaves"]


def test_for_another_thing_nobody_waits() -> None:
    async def act() -> None:
        comers = FirstComers()
        async with comers.turn("a") as one, comers.turn("b") as other:
            assert (one, other) == (False, False)

    asyncio.run(act())


def test_who_fails_lets_the_others_in() -> None:
    async def act() -> bool:
        comers = FirstComers()

        async def fail() -> None:
            async with comers.turn("a"):
                await asyncio.sleep(0)
                raise ValueError("its own")

        failing = asyncio.create_task(fail())
        await asyncio.sleep(0)
        async with comers.turn("a") as has_waited:
            pass
        with pytest.raises(ValueError, match="its own"):
            await failing
        return has_waited

    assert asyncio.run(act())
