"""What the page says about the state of each upstream."""

import asyncio

import pytest

from application.page import upstreams as module
from application.page.upstreams import DescribedUpstream
from application.ports.activity import Activity
from application.ports.upstream import PingResponse
from domain.allowance import RateLimit
from domain.errors import UpstreamUnreachable
from domain.records import ANONYMOUS_CALLER
from tests.application.support.service import NAME, Service, stocked
from tests.application.support.throttling import throttled


async def described(service: Service) -> DescribedUpstream:
    """After the worker has reported, which it does each second."""
    service.parts.activity_table().report(Activity((), tuple(service.parts.find_troubles()())))
    (one,) = await service.parts.describe_upstreams()([service.parts.upstream()])
    return one


def test_an_upstream_without_troubles_is_reachable() -> None:
    service = Service(stocked("none"))

    async def act() -> None:
        one = await described(service)
        assert one.status
        assert one.status.reachable
        assert one.back_off is one.failure is one.allowance is None

    service.run(act())


def test_to_look_asks_the_upstream_at_most_once_in_five_seconds() -> None:
    service = Service(stocked("none"))

    async def act() -> None:
        for _ in range(20):
            await described(service)
            service.clock.advance(0.25)
        assert len(service.upstream.pinged) == 1
        service.clock.advance(1)
        await described(service)
        assert len(service.upstream.pinged) == 2
        assert service.upstream.asked == []

    service.run(act())


def test_the_reason_is_shown_if_an_upstream_is_not_reachable() -> None:
    service = Service(stocked("none"))
    service.upstream.fault = UpstreamUnreachable("gone")

    async def act() -> None:
        one = await described(service)
        assert one.status
        assert (one.status.reachable, one.status.reason) == (False, "gone")

    service.run(act())


def test_back_offs_and_failures_are_shown_until_they_end() -> None:
    service = Service(stocked("none"))

    async def act() -> None:
        await service.warm_up()
        for fault in (throttled("30"), UpstreamUnreachable("gone")):
            service.upstream.fault = fault
            with pytest.raises(type(fault)):
                await service.manifest(None, NAME)
            service.clock.advance(1)
        service.upstream.fault = None
        one = await described(service)
        assert one.back_off
        assert (one.back_off.message, one.back_off.until) == ("slow down", service.clock.now() + 28)
        assert one.failure
        assert one.failure.message == "gone"
        service.clock.advance(4.5)
        one = await described(service)
        assert one.failure is None
        assert one.back_off
        service.clock.advance(30)
        assert (await described(service)).back_off is None

    service.run(act())


def test_the_allowance_of_anonymous_callers_is_shown() -> None:
    service = Service(stocked("none"))

    async def act() -> None:
        service.parts.allowances().saw(service.parts.upstream(), ANONYMOUS_CALLER, RateLimit(100, 76, 21600))
        one = await described(service)
        assert one.allowance
        assert (one.allowance.remaining, one.allowance.renewed_by) == (76, service.clock.now() + 21600)

    service.run(act())


def test_a_slow_check_does_not_hold_up_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.05)
    service = Service(stocked("none"))
    answer = asyncio.Event()

    async def slow_ping(*_: object, is_probe: bool = False) -> PingResponse:
        await answer.wait()
        return PingResponse(accepted=is_probe)

    service.upstream.ping = slow_ping

    async def act() -> None:
        assert (await described(service)).status is None
        answer.set()
        known = (await described(service)).status
        assert known
        service.clock.advance(6)
        answer.clear()
        assert (await described(service)).status == known

    service.run(act())
