"""What load balancers ask."""

import pytest

from domain.errors import UpstreamTimedOut, UpstreamUnreachable
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import basic
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import opening
from tests.fakes.upstream import FakeUpstream


async def test_livez_does_not_look_upstream(start: Start, upstream: FakeUpstream) -> None:
    upstream.fault = UpstreamUnreachable("gone")
    answer = await (await start()).get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})
    assert (answer.headers["cache-control"], answer.headers["content-type"]) == ("no-store", "application/json")
    assert upstream.pinged == []


@pytest.mark.parametrize("scheme", ["none", "bearer", "basic"])
async def test_readyz_counts_any_registrys_answer(start: Start, upstream: FakeUpstream, scheme: str) -> None:
    upstream.scheme = scheme
    answer = await (await start()).get("/readyz")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {
        "status": "ready",
        "upstream": {
            "url": "https://upstream.test",
            "reachable": True,
            "reason": None,
            "checked_at": "2027-01-15T08:00:00+00:00",
        },
    }


async def test_readyz_says_what_is_wrong(start: Start, upstream: FakeUpstream) -> None:
    upstream.fault = UpstreamTimedOut("no answer in time")
    answer = await (await start()).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert answer.json()["upstream"]["reachable"] is False
    assert answer.json()["upstream"]["reason"] == "no answer in time"


async def test_readyz_asks_every_few_seconds_only(start: Start, upstream: FakeUpstream) -> None:
    clock = StoppedClock()
    service = await start(parts=opening(upstream, clock))
    for _ in range(3):
        await service.get("/readyz")
        clock.advance(1)
    assert len(upstream.pinged) == 1
    clock.advance(10)
    await service.get("/readyz")
    assert len(upstream.pinged) == 2


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_need_no_account_ever(start: Start, path: str) -> None:
    service = await start(accounts=basic("a", "b").split()[1])
    assert (await service.get(path)).status_code == 200
    head = await service.ask(f"HEAD {path} HTTP/1.1\nHost: a")
    assert (head.status, int(head.get("content-length") or 0) > 0) == (200, True)
