"""What load balancers ask."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from dependency_injector import providers
from prometheus_client.parser import text_string_to_metric_families

from domain.allowance import RateLimit
from domain.errors import UpstreamTimedOut, UpstreamUnreachable
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container
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
        "upstreams": [
            {
                "name": "upstream.test",
                "url": "https://upstream.test",
                "reachable": True,
                "reason": None,
                "checked_at": "2027-01-15T08:00:00+00:00",
                "allowance": None,
            }
        ],
    }


async def test_readyz_tells_what_is_left_of_the_allowance(start: Start, upstream: FakeUpstream) -> None:
    upstream.put_manifest("team/app", "1", b'{"schemaVersion":2,"layers":[]}')
    left = RateLimit(100, 76, 21600)
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, allowance=left))
    service = await start()
    assert (await service.get("/v2/team/app/manifests/1")).status_code == 200
    assert (await service.get("/readyz")).json()["upstreams"][0]["allowance"] == {
        "limit": 100,
        "remaining": 76,
        "window_seconds": 21600,
        "seen_at": "2027-01-15T08:00:00+00:00",
    }
    assert 'allowance_remaining{upstream="https://upstream.test"} 76.0' in (await service.get("/metrics")).text


async def test_readyz_says_what_is_wrong(start: Start, upstream: FakeUpstream) -> None:
    upstream.fault = UpstreamTimedOut("no answer in time")
    answer = await (await start()).get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert answer.json()["upstreams"][0]["reachable"] is False
    assert answer.json()["upstreams"][0]["reason"] == "no answer in time"


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


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_need_no_account_ever(start: Start, path: str) -> None:
    service = await start(accounts=basic("a", "b").split()[1])
    assert (await service.get(path)).status_code == 200
    head = await service.ask(f"HEAD {path} HTTP/1.1\nHost: a")
    assert (head.status, int(head.get("content-length") or 0) > 0) == (200, True)


async def test_metrics_are_what_prometheus_reads(start: Start, upstream: FakeUpstream) -> None:
    answer = await (await start()).get("/metrics")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "docker_image_proxy_client_bytes" in families
    assert upstream.asked == upstream.pinged == []


async def test_other_requests_go_on_while_the_metrics_are_written(start: Start) -> None:
    service = await start()

    class Page:
        media_type = "text/plain"
        turns = 0
        seen: list[int] = []  # noqa: RUF012 - of one test

        def parts(self) -> Iterator[bytes]:
            for _ in range(5):
                self.seen.append(self.turns)
                yield b"part\n"

        def turn(self) -> None:
            self.turns += 1
            if len(self.seen) < 5:
                asyncio.get_running_loop().call_soon(self.turn)

    page = Page()
    service.parts.metrics.override(providers.Object(page))
    page.turn()
    assert (await service.get("/metrics")).text == "part\n" * 5
    assert page.seen == sorted(set(page.seen)), "the event loop took no turn between two parts"


async def test_metrics_count_what_clients_get(start: Start, upstream: FakeUpstream) -> None:
    digest = upstream.put_blob("team/secret", b"0123456789" * 1000)
    service = await start(parts=_counting(upstream))
    for _ in range(2):
        assert len((await service.get(f"/v2/team/secret/blobs/{digest}")).content) == 10_000
    await service.get(f"/v2/team/secret/blobs/{digest}", {"Range": "bytes=0-9"})
    await service.head(f"/v2/team/secret/blobs/{digest}")
    assert (await service.get("/v2/team/secret/blobs/sha256:" + "0" * 64)).status_code == 404
    text = (await service.get("/metrics")).text
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("kind", "blob") == "blob"
    }
    counts = [samples[f"docker_image_proxy_{name}_total"] for name in ("client_bytes", "upstream_bytes", "fills")]
    assert counts == [20_010, 10_000, 2]  # the one that is not there was begun too
    assert samples["docker_image_proxy_cache_hits_total"] == 2
    assert "secret" not in text


def _counting(upstream: FakeUpstream) -> Any:
    """Parts whose events are counted as in production."""

    @asynccontextmanager
    async def parts(settings: Settings, worker: int) -> AsyncIterator[Container]:
        async with opening(upstream)(settings) as container:
            container.events.override(providers.Object(container.counting()))
            yield container

    return parts
