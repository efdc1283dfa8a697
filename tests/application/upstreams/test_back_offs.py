"""An upstream that wants to be asked less is asked less, by whom it said it to, and about what it counts."""

from email.utils import formatdate

import pytest

from application.ports.upstream import ResourceKind
from domain.allowance import RateLimit
from domain.errors import UpstreamBackOff
from domain.events import BackOffStarted
from domain.names import RepositoryName
from domain.records import ANONYMOUS_CALLER
from tests.application.support.service import IMAGE_DIGEST, LAYER
from tests.application.support.throttling import NEW, OTHER, PUBLIC, Throttling, throttled
from tests.application.support.watched import ALICES, BOBS, NOBODYS


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("90", 90), (formatdate(1_800_000_000 + 61 + 90, usegmt=True), 90), (None, 5), ("soon", 5), ("86400", 600)],
)
def test_it_is_left_alone_for_as_long_as_it_said_within_reason(retry_after: str | None, seconds: float) -> None:
    pulls = Throttling(tag_ttl=0)

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled(retry_after))
        await pulls.stale()
        assert pulls.asked() == ["HEAD"]
        pulls.service.clock.advance(seconds - 0.1)
        for _ in range(3):
            await pulls.stale()
        assert pulls.asked() == []
        pulls.service.clock.advance(0.1)
        pulls.refuse(None)
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings == ()
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())


def test_with_nothing_at_hand_one_may_try_each_second_and_the_others_are_told_how_long() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled("30"))
        assert (await pulls.refused()).retry_after == "30"
        assert pulls.asked() == ["GET"]
        for reference in ("1", "2", "sha256:" + "0" * 64):
            assert (await pulls.refused(reference=reference, accept=("application/x",))).retry_after == "30"
        pulls.service.clock.advance(0.9)
        answer = await pulls.refused()
        assert (answer.retry_after, answer.message, pulls.asked()) == ("30", "slow down", [])
        pulls.service.clock.advance(0.1)
        pulls.refuse(throttled("20"))
        await pulls.refused()
        assert pulls.asked() == ["GET"]
        assert (await pulls.refused()).retry_after == "20"
        pulls.service.clock.advance(1)
        pulls.refuse(None)
        assert (await pulls.pull(NOBODYS, **OTHER)).content == NEW  # it lets us in earlier than it said
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings == ()

    pulls.run(act())


def test_who_was_not_told_how_long_is_not_told_it_by_us() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled())
        for _ in range(5):
            assert (await pulls.refused()).retry_after is None
        assert pulls.asked() == ["GET"]

    pulls.run(act())


def test_another_caller_has_an_allowance_of_its_own() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled("30"))
        await pulls.refused(ALICES)
        await pulls.refused(BOBS)
        assert pulls.asked() == ["GET", "GET"]
        pulls.refuse(None)
        await pulls.refused(ALICES)
        assert (await pulls.pull(NOBODYS, **OTHER)).content == NEW
        assert pulls.asked() == ["GET"]

    pulls.run(act())


def test_blobs_are_not_what_is_counted() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled("300"))
        await pulls.stale()
        pulls.asked()
        assert await pulls.service.blob(NOBODYS) == LAYER
        assert pulls.asked() == ["GET"]
        pulls.refuse(throttled("300"), ResourceKind.BLOB)
        pulls.service.clock.advance(240)
        assert await pulls.service.blob(NOBODYS) == LAYER  # a 429 for a blob, and the old answer stands in
        pulls.service.clock.advance(61)
        pulls.asked()
        await pulls.pull(NOBODYS, **PUBLIC)
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())


def test_a_blob_that_is_here_is_asked_about_while_manifests_are_not() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        await pulls.service.blob(NOBODYS)
        pulls.service.clock.advance(301)
        pulls.refuse(throttled("300"))
        await pulls.stale()
        pulls.asked()
        assert await pulls.service.blob(NOBODYS) == LAYER
        assert pulls.asked() == ["HEAD"]
        assert (await pulls.pull(NOBODYS, **PUBLIC, reference=str(IMAGE_DIGEST))).warnings == ()  # its right is new

    pulls.run(act())


def test_each_time_is_told_once() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled("30"))
        for _ in range(5):
            await pulls.refused()
            await pulls.refused()
            pulls.service.clock.advance(1)
        assert pulls.back_offs() == [BackOffStarted("https://upstream.test", 30, "slow down")]
        pulls.service.clock.advance(31)
        await pulls.refused()
        assert len(pulls.back_offs()) == 2
        pulls.service.clock.advance(31)
        pulls.refuse(None)
        pulls.allow(RateLimit(100, 0, 21600))
        for _ in range(3):
            await pulls.pull(NOBODYS, **OTHER, accept=("application/x",))
            pulls.service.clock.advance(1)
        assert [event.seconds for event in pulls.back_offs()] == [30, 30, 600]

    pulls.run(act())


def test_to_be_left_alone_extends_neither_tag_nor_grant() -> None:
    pulls = Throttling(grant_ttl=300)

    async def act() -> None:
        await pulls.pull()  # a private one, by alice
        pulls.refuse(throttled("600"))
        pulls.service.clock.advance(61)
        assert (await pulls.pull()).warnings  # the upstream's own 429 does extend the tag
        pulls.service.clock.advance(59)
        assert not (await pulls.pull()).warnings
        pulls.service.clock.advance(2)
        pulls.asked()
        for _ in range(2):
            assert (await pulls.pull()).warnings
        pulls.service.clock.advance(170)
        assert (await pulls.pull()).warnings
        assert pulls.asked() == []
        pulls.service.clock.advance(10)
        await pulls.refused(ALICES, name=RepositoryName("private/app"))

    pulls.run(act())


def test_a_tag_that_is_known_to_have_changed_is_not_extended() -> None:
    """A HEAD, which is not counted, said so; the GET, which is, was refused."""
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.upstream.put_manifest(str(PUBLIC["name"]), "1", NEW)
        pulls.upstream.refuse = lambda fetch: None if fetch.head else throttled("10")
        await pulls.stale()
        assert pulls.asked() == ["HEAD", "GET"]
        await pulls.stale()
        assert pulls.asked() == []
        pulls.service.clock.advance(10)
        pulls.refuse(None)
        assert (await pulls.pull(NOBODYS, **PUBLIC)).content == NEW

    pulls.run(act())


def test_who_was_not_asked_again_prolongs_nothing() -> None:
    pulls = Throttling()

    async def spared() -> None:
        raise UpstreamBackOff("slow down", retry_after="60")

    async def act() -> None:
        await pulls.begin()
        with pytest.raises(UpstreamBackOff):
            await pulls.service.parts.outages().attempt(
                pulls.service.parts.upstream(), ANONYMOUS_CALLER, spared, has_stand_in=False, manifests=True
            )
        for reference in ("1", "1"):
            assert (await pulls.pull(NOBODYS, **OTHER, reference=reference)).content == NEW
        assert pulls.back_offs() == []

    pulls.run(act())
