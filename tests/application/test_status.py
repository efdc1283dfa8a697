"""Is the upstream there? Asked often, answered from memory."""

import asyncio

import pytest

from application.ports.upstream import ForwardedCredentials, PingResponse
from application.status import UpstreamStatus
from domain.errors import RegistryError, UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable
from tests.application.support.service import Service, stocked


def status(service: Service) -> UpstreamStatus:
    return service.run(service.parts.report_status()(service.parts.upstream()))


@pytest.mark.parametrize("scheme", ["none", "bearer", "basic"])
def test_refusal_by_a_registry_is_an_answer(scheme: str) -> None:
    service = Service(stocked(scheme))
    assert status(service) == UpstreamStatus("https://upstream.test", True, service.clock.now())
    assert service.upstream.pinged == [ForwardedCredentials(None)]


@pytest.mark.parametrize("fault", [UpstreamUnreachable("gone"), UpstreamTimedOut("slow"), UpstreamBroken("HTML")])
def test_upstream_in_trouble_is_named_with_the_reason(fault: RegistryError) -> None:
    service = Service(stocked("none"))
    service.upstream.fault = fault
    assert status(service) == UpstreamStatus("https://upstream.test", False, service.clock.now(), fault.message)


def test_upstream_is_asked_once_in_a_while() -> None:
    service = Service(stocked("none"))
    for _ in range(5):
        status(service)
    assert len(service.upstream.pinged) == 1
    service.clock.advance(6)
    status(service)
    assert len(service.upstream.pinged) == 2


def test_trouble_is_remembered_no_longer_than_health() -> None:
    service = Service(stocked("none"))
    service.upstream.fault = UpstreamUnreachable("gone")
    assert not status(service).reachable
    service.upstream.fault = None
    service.clock.advance(6)
    assert status(service).reachable


def test_many_who_ask_at_once_share_the_answer() -> None:
    service = Service(stocked("none"))

    async def ask() -> list[UpstreamStatus]:
        report = service.parts.report_status()
        return await asyncio.gather(*(report(service.parts.upstream()) for _ in range(20)))

    assert len(set(service.run(ask()))) == 1
    assert len(service.upstream.pinged) == 1


def test_operators_credentials_stay_out_of_the_probe() -> None:
    service = Service(
        stocked("basic"), upstream_identity="service", upstream_username="alice", upstream_password="right"
    )
    assert status(service).reachable
    assert service.upstream.pinged == [ForwardedCredentials(None)]


def test_one_check_serves_all_who_ask_and_leave() -> None:
    service = Service(stocked("none"))
    answer = asyncio.Event()
    pinged: list[object] = []

    async def slow_ping(*asked: object, is_probe: bool = False) -> PingResponse:
        pinged.append(asked)
        await answer.wait()
        return PingResponse(accepted=True)

    service.upstream.ping = slow_ping

    async def ask() -> bool:
        report, upstream = service.parts.report_status(), service.parts.upstream()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(report(upstream), 0.01)
        answer.set()
        return (await report(upstream)).reachable

    assert service.run(ask())
    assert len(pinged) == 1
