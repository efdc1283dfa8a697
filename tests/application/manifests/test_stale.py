"""What is answered while the upstream cannot be asked, to whom, and what is said with it."""

from typing import Any

import pytest

from domain.errors import (
    Denied,
    ManifestUnknown,
    RegistryError,
    Unauthorized,
    UpstreamAuthUnknown,
    UpstreamBroken,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from domain.events import StaleServed
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, LAYER, NAME
from tests.application.support.watched import ALICES, BOBS, NOBODYS, challenged

OUTAGES = [
    UpstreamUnreachable("connection refused"),
    UpstreamTimedOut("no answer"),
    UpstreamThrottled("slow down", retry_after="60"),
    UpstreamBroken("it says 503"),
    UpstreamAuthUnknown("not known"),
]
EACH = pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
PUBLIC = {"name": NAME}


def failing(pulls: Pulls, error: RegistryError | None) -> None:
    pulls.upstream.refuse = lambda _: error


@EACH
@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_a_public_manifest_is_served_with_a_warning(outage: RegistryError, reference: str) -> None:
    pulls = Pulls()

    async def act() -> Any:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, outage)
        pulls.service.clock.advance(301)
        return await pulls.pull(NOBODYS, **PUBLIC, reference=reference)

    answer = pulls.run(act())
    assert (answer.content, answer.digest, answer.is_hit) == (IMAGE_CONTENT, IMAGE_DIGEST, True)
    (warning,) = answer.warnings
    assert warning.startswith('299 - "')
    assert outage.message in warning
    assert answer.good_until == 0.0
    assert StaleServed("https://upstream.test", outage.message) in pulls.service.events


@EACH
def test_a_public_blob_is_served_with_a_warning(outage: RegistryError) -> None:
    pulls = Pulls()

    async def act() -> bytes:
        await pulls.service.blob(NOBODYS)
        failing(pulls, outage)
        pulls.service.clock.advance(301)
        return await pulls.service.blob(NOBODYS)

    assert pulls.run(act()) == LAYER
    assert any(isinstance(event, StaleServed) for event in pulls.service.events)


@EACH
def test_public_content_is_public_for_every_caller(outage: RegistryError) -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, outage)
        pulls.service.clock.advance(61)
        for header in (ALICES, BOBS, "Bearer unknown"):
            assert (await pulls.pull(header, **PUBLIC)).content == IMAGE_CONTENT

    pulls.run(act())


@EACH
def test_private_content_is_served_only_while_the_grant_is_live(outage: RegistryError) -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        failing(pulls, outage)
        pulls.service.clock.advance(61)
        answer = await pulls.pull()
        assert (answer.content, len(answer.warnings)) == (IMAGE_CONTENT, 1)
        with pytest.raises(type(outage)):
            await pulls.pull(BOBS)
        pulls.service.clock.advance(240)
        for reference in ("1", str(IMAGE_DIGEST)):
            with pytest.raises(type(outage)):
                await pulls.pull(reference=reference)

    pulls.run(act())


def test_private_content_is_not_served_after_its_token_has_ended() -> None:
    pulls = Pulls(grant_ttl=3600)

    async def act() -> None:
        await pulls.login(100)
        await pulls.pull()
        failing(pulls, UpstreamUnreachable("gone"))
        pulls.service.clock.advance(101)
        with pytest.raises(UpstreamUnreachable):
            await pulls.pull()

    pulls.run(act())


@pytest.mark.parametrize("error", [challenged(), Denied("no"), ManifestUnknown("gone")])
@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_an_error_of_the_upstream_itself_is_passed_on(error: RegistryError, reference: str) -> None:
    pulls = Pulls()
    raised = Unauthorized if error.code == "UNAUTHORIZED" else type(error)

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, error)
        pulls.service.clock.advance(301)
        with pytest.raises(raised):
            await pulls.pull(NOBODYS, **PUBLIC, reference=reference)

    pulls.run(act())


def test_a_429_extends_the_tag() -> None:
    pulls = Pulls(grant_ttl=3600)

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        failing(pulls, UpstreamThrottled("slow down"))
        pulls.service.clock.advance(61)
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings
        pulls.asked()
        pulls.service.clock.advance(59)
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings == ()
        assert pulls.asked() == []

    pulls.run(act())


def test_a_429_extends_no_grant() -> None:
    pulls = Pulls(grant_ttl=300)

    async def act() -> None:
        await pulls.pull()
        failing(pulls, UpstreamThrottled("slow down"))
        for _ in range(5):
            pulls.service.clock.advance(59)
            assert (await pulls.pull()).content == IMAGE_CONTENT
        pulls.service.clock.advance(10)
        with pytest.raises(UpstreamThrottled):
            await pulls.pull()

    pulls.run(act())


@pytest.mark.parametrize("outage", [OUTAGES[0], OUTAGES[3]])
def test_other_outages_extend_no_tag(outage: RegistryError) -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        pulls.service.clock.advance(61)
        for _ in range(2):
            failing(pulls, outage)
            assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings
            pulls.service.clock.advance(6)
        failing(pulls, None)
        pulls.asked()
        assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings == ()
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())


@EACH
def test_the_previous_manifest_is_served_if_the_new_one_cannot_be_fetched(outage: RegistryError) -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        pulls.upstream.put_manifest(str(NAME), "1", b'{"schemaVersion":2,"layers":[],"annotations":{"new":"yes"}}')
        pulls.upstream.refuse = lambda fetch: None if fetch.head else outage
        for _ in range(3):
            pulls.service.clock.advance(61)
            assert (await pulls.pull(NOBODYS, **PUBLIC)).content == IMAGE_CONTENT

    pulls.run(act())


def test_an_upstream_that_has_just_failed_gets_no_requests_for_a_moment() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull(NOBODYS, **PUBLIC)
        pulls.service.clock.advance(61)
        failing(pulls, UpstreamUnreachable("gone"))
        pulls.asked()
        for _ in range(5):
            assert (await pulls.pull(NOBODYS, **PUBLIC)).warnings
        assert pulls.asked() == ["HEAD"]
        with pytest.raises(UpstreamUnreachable):  # with nothing at hand it is asked all the same
            await pulls.pull(ALICES)
        assert len(pulls.asked()) == 1
        pulls.service.clock.advance(5.1)
        await pulls.pull(NOBODYS, **PUBLIC)
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())
