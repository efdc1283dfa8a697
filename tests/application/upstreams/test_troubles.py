"""Why a worker sends an upstream fewer requests, as the page shows it."""

import pytest

from domain.errors import UpstreamUnreachable
from domain.names import RepositoryName
from tests.application.support.service import NAME, PRIVATE, Service, stocked
from tests.application.support.throttling import PUBLIC, Throttling, throttled
from tests.application.support.watched import ALICES


def troubles(service: Service) -> list[tuple[bool, str, float]]:
    """Each with the seconds until its end."""
    now = service.clock.now()
    return [(one.is_back_off, one.message, one.until - now) for one in service.parts.find_troubles()()]


def test_a_back_off_of_anonymous_callers_is_a_trouble_until_it_ends() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        assert troubles(pulls.service) == []
        pulls.refuse(throttled("30"))
        await pulls.refused()
        assert troubles(pulls.service) == [(True, "slow down", 30)]
        pulls.service.clock.advance(29)
        assert troubles(pulls.service) == [(True, "slow down", 1)]
        pulls.service.clock.advance(1)
        assert troubles(pulls.service) == []

    pulls.run(act())


def test_a_back_off_of_a_caller_with_a_login_of_its_own_is_private() -> None:
    pulls = Throttling()

    async def act() -> None:
        await pulls.begin()
        pulls.refuse(throttled("30"))
        with pytest.raises(Exception, match="slow down"):
            await pulls.pull(ALICES, **PUBLIC | {"reference": "other"})
        assert troubles(pulls.service) == []

    pulls.run(act())


def test_a_back_off_of_the_mirrors_login_is_a_trouble() -> None:
    service = Service(
        stocked("bearer"), upstream_identity="service", upstream_username="alice", upstream_password="right"
    )

    async def act() -> None:
        await service.warm_up()
        service.upstream.fault = throttled("40")
        with pytest.raises(Exception, match="slow down"):
            await service.manifest(None, PRIVATE)
        assert troubles(service) == [(True, "slow down", 40)]

    service.run(act())


def test_a_failure_is_a_trouble_for_some_seconds_or_until_the_upstream_answers() -> None:
    service = Service(stocked("none"))

    async def act() -> None:
        await service.warm_up()
        service.upstream.fault = UpstreamUnreachable("gone")
        with pytest.raises(UpstreamUnreachable):
            await service.manifest(None, NAME)
        assert troubles(service) == [(False, "gone", 5)]
        service.clock.advance(5)
        assert troubles(service) == []
        with pytest.raises(UpstreamUnreachable):
            await service.manifest(None, NAME)
        assert len(troubles(service)) == 1
        service.upstream.fault = None
        await service.manifest(None, RepositoryName("public/app"))
        assert troubles(service) == []

    service.run(act())
