"""Whose trouble an outage is, and for how long older answers stand in."""

import asyncio
from typing import Any

import pytest

from domain.errors import (
    RegistryError,
    UpstreamBroken,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from tests.application.support.pulls import Pulls
from tests.application.support.service import ALICE, IMAGE_CONTENT, IMAGE_DIGEST, NAME, PRIVATE, basic
from tests.application.support.watched import ALICES, BOBS, NOBODYS

PUBLIC = {"name": NAME}


def failing(pulls: Pulls, error: RegistryError | None) -> None:
    pulls.upstream.refuse = lambda _: error


def test_an_error_of_one_caller_does_not_affect_others() -> None:
    """Docker Hub counts its limit for each account. One that has used it up must not freeze what others get."""
    pulls = Pulls()
    new = b'{"schemaVersion":2,"layers":[],"annotations":{"a":"b"}}'

    async def act() -> bytes | None:
        await pulls.pull(NOBODYS, **PUBLIC)
        pulls.upstream.put_manifest(str(NAME), "1", new)
        pulls.service.clock.advance(61)
        pulls.upstream.refuse = lambda fetch: (
            UpstreamThrottled("bob's limit") if "bob" in repr(fetch.credentials.raw) else None
        )
        await pulls.pull(BOBS, **PUBLIC)
        pulls.service.clock.advance(0.5)
        return (await pulls.pull(ALICES, **PUBLIC, reference="1")).content

    assert pulls.run(act()) == new


def test_an_upstream_that_does_not_answer_is_waited_for_a_short_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.upstreams.outages._PATIENCE_SECONDS", 0.05)
    pulls = Pulls()

    async def forever(_: Any) -> None:
        await asyncio.Event().wait()

    async def act() -> Any:
        await pulls.pull(NOBODYS, **PUBLIC)
        pulls.service.clock.advance(61)
        pulls.upstream.hold = forever
        return await pulls.pull(NOBODYS, **PUBLIC)

    answer = pulls.run(act())
    assert (answer.content, len(answer.warnings)) == (IMAGE_CONTENT, 1)


def test_stale_answers_are_served_for_stale_ttl_only() -> None:
    pulls = Pulls(stale_ttl=1000)

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, UpstreamUnreachable("gone"))
        pulls.service.clock.advance(999)
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings
        pulls.service.clock.advance(2)
        for reference in ("1", str(IMAGE_DIGEST)):
            with pytest.raises(UpstreamUnreachable):
                await pulls.pull(NOBODYS, **PUBLIC, reference=reference)

    pulls.run(act())


def test_a_tag_that_was_not_requested_for_long_is_not_served_stale() -> None:
    """That another tag of the repository was fetched lately says nothing of this one."""
    pulls = Pulls(stale_ttl=1000)
    pulls.upstream.put_manifest(str(NAME), "2", b'{"schemaVersion":2,"layers":[],"annotations":{}}')

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        for _ in range(20):
            pulls.service.clock.advance(500)
            await pulls.login()
            await pulls.pull(NOBODYS, **PUBLIC, reference="2")
        failing(pulls, UpstreamUnreachable("gone"))
        with pytest.raises(UpstreamUnreachable):
            await pulls.pull(NOBODYS, **PUBLIC)

    pulls.run(act())


def test_without_stale_ttl_nothing_is_served_stale() -> None:
    pulls = Pulls(stale_ttl=0, grant_ttl=300)

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, UpstreamUnreachable("gone"))
        pulls.service.clock.advance(301)
        with pytest.raises(UpstreamUnreachable):
            await pulls.pull(NOBODYS, **PUBLIC)

    pulls.run(act())


def test_the_mirrors_own_right_outlives_an_outage() -> None:
    pulls = Pulls("basic", upstream_username="alice", upstream_password="right", host="127.0.0.1")

    async def act() -> Any:
        await pulls.pull(None)
        failing(pulls, UpstreamUnreachable("gone"))
        pulls.service.clock.advance(3000)
        return await pulls.pull(None)

    answer = pulls.run(act())
    assert (answer.content, len(answer.warnings)) == (IMAGE_CONTENT, 1)


def test_a_login_that_passes_is_no_public_one() -> None:
    pulls = Pulls("basic")

    async def act() -> None:
        await pulls.pull(basic(ALICE))
        failing(pulls, UpstreamUnreachable("gone"))
        pulls.service.clock.advance(301)
        for header in (basic(ALICE), None):
            with pytest.raises(UpstreamUnreachable):
                await pulls.pull(header)

    pulls.run(act())


def test_what_the_upstream_says_cannot_break_the_warning() -> None:
    pulls = Pulls()

    async def act() -> Any:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, UpstreamBroken('it says "no\\way"\r\nX-Evil: 1 \u2028 ' + "long" * 500))
        pulls.service.clock.advance(61)
        return await pulls.pull(NOBODYS, **PUBLIC)

    (warning,) = pulls.run(act()).warnings
    assert warning.isascii()
    assert warning.isprintable()
    assert warning.count('"') == 2
    assert "\\" not in warning
    assert len(warning) < 700


def test_an_unknown_name_gets_the_error_of_the_upstream() -> None:
    pulls = Pulls()

    async def act() -> None:
        failing(pulls, UpstreamUnreachable("gone"))
        with pytest.raises(UpstreamUnreachable):
            await pulls.pull(NOBODYS, name=PRIVATE)

    pulls.run(act())
