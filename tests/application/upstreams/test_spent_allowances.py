"""With nothing left of its allowance an upstream is left alone before it has to say so."""

from typing import Any

from domain.allowance import RateLimit
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, PRIVATE
from tests.application.support.throttling import NEW, OTHER, PUBLIC, Throttling, throttled
from tests.application.support.watched import ALICES, NOBODYS


def test_a_right_to_what_is_here_is_asked_for_by_one_a_second() -> None:
    pulls = Throttling()
    private: dict[str, Any] = {"name": PRIVATE, "reference": str(IMAGE_DIGEST)}

    async def act() -> None:
        await pulls.pull(ALICES, **private)
        pulls.allow(RateLimit(100, 0, 21600))
        pulls.service.clock.advance(301)
        pulls.asked()
        assert (await pulls.pull(ALICES, **private)).content == IMAGE_CONTENT
        assert pulls.asked() == ["HEAD"]
        pulls.service.clock.advance(301)
        pulls.refuse(throttled("300"))
        for _ in range(3):
            await pulls.refused(ALICES, **private)
        assert pulls.asked() == ["HEAD"]
        assert pulls.back_offs()[0].seconds == 600
        assert pulls.service.parts.allowances().newest(pulls.service.parts.upstream()) is None  # it is alice's

    pulls.run(act())


def test_with_nothing_left_one_a_second_may_try_all_the_same() -> None:
    pulls = Throttling()
    pulls.allow(RateLimit(100, 0, 21600))

    async def act() -> None:
        await pulls.begin()
        assert (await pulls.pull(NOBODYS, **OTHER)).content == NEW
        assert pulls.asked() == ["GET"]
        assert (await pulls.refused(reference="2")).retry_after is None
        assert pulls.asked() == []

    pulls.run(act())


def test_the_last_of_an_allowance_is_spent_without_running_into_a_429() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.allow(RateLimit(100, 0, 21600))
        assert (await pulls.pull(NOBODYS, **OTHER)).content == NEW
        assert pulls.asked() == ["GET"]
        await pulls.stale()
        assert pulls.asked() == []
        pulls.service.clock.advance(599)
        await pulls.stale()
        assert pulls.asked() == []
        pulls.service.clock.advance(1)
        pulls.allow(RateLimit(100, 100, 21600))
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings == ()
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())


def test_a_window_that_is_over_sooner_is_believed() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.allow(RateLimit(5, 0, 60))
        await pulls.pull(NOBODYS, **OTHER)
        await pulls.stale()
        pulls.asked()
        pulls.service.clock.advance(60)
        await pulls.pull(NOBODYS, **PUBLIC)
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())


def test_a_429_may_say_what_is_left() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled(None, RateLimit(100, 0, 21600)))
        assert (await pulls.refused()).retry_after is None
        pulls.service.clock.advance(300)
        pulls.asked()
        await pulls.stale()
        assert pulls.asked() == []
        shown = pulls.service.parts.allowances().newest(pulls.service.parts.upstream())
        assert (shown.remaining, shown.limit) == (0, 100)

    pulls.run(act())
