"""The first fetches; the others wait, once."""

import asyncio

import pytest

from application.concurrency import SharedFetches


def test_the_others_wait_for_the_first_and_find_its_result() -> None:
    async def act() -> list[str | None]:
        comers: SharedFetches[str] = SharedFetches()
        got: list[str | None] = []

        async def wait() -> None:
            turn = comers.under_way("a")
            assert turn
            got.append(await turn.wait())

        async with comers.lead("a") as turn:
            waiting = [asyncio.create_task(wait()) for _ in range(2)]
            await asyncio.sleep(0)
            assert got == []
            turn.result = "it"
        await asyncio.gather(*waiting)
        assert comers.under_way("a") is None
        return got

    assert asyncio.run(act()) == ["it", "it"]


async def test_a_fetch_of_another_key_does_not_wait() -> None:
    comers: SharedFetches[str] = SharedFetches()
    async with comers.lead("a"):
        assert comers.under_way("b") is None


async def test_a_turn_may_be_found_by_several_keys_and_by_one_that_is_known_later() -> None:
    comers: SharedFetches[str] = SharedFetches()
    async with comers.lead("tag", "digest") as turn:
        comers.also("tag", "other digest")
        comers.also("another tag", "yet another digest")
        for key in ("tag", "digest", "other digest"):
            assert comers.under_way("unknown", key) is turn
        assert comers.under_way("yet another digest") is None
    for key in ("tag", "digest", "other digest"):
        assert comers.under_way(key) is None


async def test_a_failed_fetch_leaves_no_result_and_releases_the_keys() -> None:
    comers: SharedFetches[str] = SharedFetches()
    with pytest.raises(ValueError, match="its own"):
        async with comers.lead("a") as turn:
            raise ValueError("its own")
    assert turn.done.is_set()
    assert turn.result is None
    assert comers.under_way("a") is None
