"""A request that the mirror could not send is no outage of the upstream: nothing older stands in for its answer."""

from typing import Any

import pytest

from domain.errors import RegistryError, RequestNotSent, UpstreamUnreachable
from domain.events import StaleServed, UpstreamFailed
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, NAME, Service
from tests.application.support.watched import NOBODYS
from tests.fakes.upstream import FakeUpstream

UNSENT = RequestNotSent("the mirror could not build its request")


@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_a_manifest_that_could_not_be_asked_for_is_not_replaced_by_an_older_one(reference: str) -> None:
    pulls = Pulls()

    async def act() -> Any:
        await pulls.pull(NOBODYS, name=NAME)
        pulls.service.clock.advance(301)
        pulls.upstream.refuse = lambda _: UNSENT
        with pytest.raises(RequestNotSent):
            await pulls.pull(NOBODYS, name=NAME, reference=reference)
        pulls.upstream.refuse = lambda _: None
        pulls.asked()
        return await pulls.pull(NOBODYS, name=NAME, reference=reference), pulls.asked()

    answer, asked = pulls.run(act())
    assert (answer.content, answer.warnings) == (IMAGE_CONTENT, ())
    assert asked, "the upstream is asked at once, as if nothing had been"
    assert not [event for event in pulls.service.events if isinstance(event, StaleServed)]


def test_a_blob_that_could_not_be_asked_for_is_not_given_from_the_cache() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.service.blob(NOBODYS)
        pulls.service.clock.advance(301)
        pulls.upstream.refuse = lambda _: UNSENT
        with pytest.raises(RequestNotSent):
            await pulls.service.blob(NOBODYS)

    pulls.run(act())
    assert not [event for event in pulls.service.events if isinstance(event, StaleServed)]


@pytest.mark.parametrize(("fault", "events"), [(UNSENT, 0), (UpstreamUnreachable("connection refused"), 1)])
def test_only_the_upstreams_own_failure_is_told_as_one(fault: RegistryError, events: int) -> None:
    upstream = FakeUpstream(scheme="bearer", fault=fault)
    service = Service(upstream)

    async def act() -> None:
        with pytest.raises(RegistryError) as failed:
            await service.manifest(NOBODYS, name=NAME)
        assert isinstance(failed.value, RequestNotSent) is (fault is UNSENT)

    service.run(act())
    assert len([event for event in service.events if isinstance(event, UpstreamFailed)]) == events
