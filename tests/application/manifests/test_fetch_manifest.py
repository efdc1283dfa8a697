"""How often a registry that counts GETs of manifests counts one image for many clients."""

import asyncio
from typing import Any

import pytest

from application.ports.upstream import UpstreamRequest
from domain.errors import Denied, RegistryError, UpstreamBackOff, UpstreamThrottled, UpstreamUnreachable
from domain.tokens import IssuedToken
from tests.application.support.pulls import Pulls
from tests.application.support.service import ALICE, IMAGE_CONTENT, IMAGE_DIGEST, PRIVATE
from tests.application.support.watched import BOBS, soon

MANY = [f"Bearer upstream-token-of-user{number}" for number in range(20)]
EITHER = pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])


class Counted(Pulls):
    """The first GET waits until it is let go; with `holds_heads` a HEAD does, too."""

    holds_heads = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.gate = asyncio.Event()
        self.upstream.hold = self._hold

    async def _hold(self, fetch: UpstreamRequest) -> None:
        self.waiting = True
        if self.holds_heads or not fetch.head:
            await self.gate.wait()

    async def crowd(self, reference: str) -> list[Any]:
        """All at once, each with a token of its own."""
        pulls = [asyncio.create_task(self.pull(header, reference=reference)) for header in MANY]
        for _ in range(50):
            await asyncio.sleep(0)
        self.gate.set()
        return await asyncio.gather(*pulls, return_exceptions=True)


@EITHER
def test_many_concurrent_requests_cost_one(reference: str) -> None:
    pulls = Counted()

    async def act() -> None:
        answers = await pulls.crowd(reference)
        assert {answer.content for answer in answers} == {IMAGE_CONTENT}
        # Each proves a right of its own; for a digest the first one, too.
        assert sorted(pulls.asked()) == ["GET"] + ["HEAD"] * (20 if ":" in reference else 19)

    pulls.run(act())


@EITHER
def test_many_consecutive_requests_cost_one(reference: str) -> None:
    pulls = Counted()
    pulls.gate.set()

    async def act() -> None:
        for header in MANY:
            assert (await pulls.pull(header, reference=reference)).content == IMAGE_CONTENT
        assert pulls.asked() == [*(["HEAD"] if ":" in reference else []), "GET", *(["HEAD"] * 19)]

    pulls.run(act())


def test_a_client_that_asks_by_head_and_then_by_digest_costs_one_and_the_next_one_none() -> None:
    pulls = Counted()
    pulls.gate.set()

    async def act() -> None:
        for header in (MANY[0], MANY[0], BOBS):
            head = await pulls.pull(header, head=True)
            assert (await pulls.pull(header, reference=str(head.digest))).content == IMAGE_CONTENT
        assert pulls.asked() == ["HEAD", "GET", "HEAD"]

    pulls.run(act())


def test_without_a_cache_identical_requests_of_one_caller_share_a_request() -> None:
    pulls = Counted(cache_dir="off")

    async def act() -> None:
        asking = [asyncio.create_task(pulls.pull(BOBS)) for _ in range(5)]
        await soon(lambda: hasattr(pulls, "waiting"))
        pulls.gate.set()
        await asyncio.gather(*asking)
        assert pulls.asked() == ["GET"]

    pulls.run(act())


@EITHER
def test_a_waiting_caller_gets_nothing_without_its_own_permission(reference: str) -> None:
    pulls = Counted()

    def refuse(fetch: UpstreamRequest) -> RegistryError | None:
        return None if "user0" in repr(fetch.credentials.raw) else Denied("no")

    pulls.upstream.refuse = refuse

    async def act() -> None:
        first, *others = await pulls.crowd(reference)
        assert first.content == IMAGE_CONTENT
        assert {type(other) for other in others} == {Denied}

    pulls.run(act())


@EITHER
def test_if_the_first_fetch_fails_the_others_fetch_themselves(reference: str) -> None:
    pulls = Counted()

    def refuse(fetch: UpstreamRequest) -> RegistryError | None:
        return UpstreamUnreachable("gone") if "user0" in repr(fetch.credentials.raw) else None

    pulls.upstream.refuse = refuse

    async def act() -> None:
        first, *others = await pulls.crowd(reference)
        assert isinstance(first, UpstreamUnreachable)
        assert {other.content for other in others} == {IMAGE_CONTENT}

    pulls.run(act())


@EITHER
def test_a_request_that_waited_for_a_429_sends_no_request(reference: str) -> None:
    """Unknown tokens are different callers; requests without a token are one caller."""
    pulls = Counted()
    pulls.holds_heads = True
    pulls.upstream.refuse = lambda fetch: UpstreamThrottled("slow down", retry_after="60")

    async def act() -> None:
        for header in MANY:
            token = IssuedToken(header.removeprefix("Bearer "), 3600, int(pulls.service.clock.now()))
            await pulls.service.parts.caller_identities().remember(None, token)
        answers = await pulls.crowd(reference)
        assert [one.retry_after for one in answers] == ["60"] * 20
        assert sum(isinstance(one, UpstreamBackOff) for one in answers) == 19
        assert pulls.asked() == ["HEAD" if ":" in reference else "GET"]

    pulls.run(act())


def test_a_request_that_waited_for_a_success_ignores_an_older_429() -> None:
    """The same caller with another token: the first may try though the time is not over, and is let in."""
    pulls = Counted()

    async def act() -> None:
        for header in MANY[:3]:
            token = IssuedToken(header.removeprefix("Bearer "), 3600, int(pulls.service.clock.now()))
            await pulls.service.parts.caller_identities().remember(ALICE, token)
        pulls.upstream.refuse = lambda fetch: UpstreamThrottled("slow down", retry_after="60")
        pulls.gate.set()
        with pytest.raises(UpstreamThrottled):
            await pulls.pull(MANY[0])
        pulls.upstream.refuse = lambda fetch: None
        pulls.gate.clear()
        asking = []
        for header in MANY[1:3]:
            pulls.service.clock.advance(1)
            asking.append(asyncio.create_task(pulls.pull(header)))
            for _ in range(50):
                await asyncio.sleep(0)
        pulls.gate.set()
        answers = await asyncio.gather(*asking)
        assert [answer.content for answer in answers] == [IMAGE_CONTENT] * 2
        assert pulls.asked() == ["GET", "GET", "HEAD"]

    pulls.run(act())


def test_a_changed_tag_costs_one_for_all() -> None:
    pulls = Counted()
    new = b'{"schemaVersion":2,"layers":[],"annotations":{"new":"yes"}}'

    async def act() -> None:
        pulls.gate.set()
        for header in MANY:
            await pulls.pull(header)
        pulls.gate.clear()
        pulls.upstream.put_manifest(str(PRIVATE), "1", new)
        pulls.service.clock.advance(61)
        pulls.asked()
        assert {answer.content for answer in await pulls.crowd("1")} == {new}
        assert pulls.asked().count("GET") == 1

    pulls.run(act())
