"""The section of the history."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import html5lib
import pytest
from dependency_injector import providers

from domain.digest import Digest
from domain.errors import UpstreamUnavailable
from domain.history import SPANS
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic
from tests.fakes.parts import opening
from tests.fakes.upstream import FakeUpstream

MANIFEST = b'{"schemaVersion":2,"layers":[]}'
MISSING = "\u2013"
ANN = basic("ann", "pw")
ACCOUNTS = {"accounts": ANN.removeprefix("Basic ")}


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/secret", "v1", MANIFEST)
    return upstream


async def counting(start: Start, upstream: FakeUpstream, **settings: object) -> Service:
    """The service with counters, which other tests replace."""

    @asynccontextmanager
    async def parts(settings: Settings, **_: object) -> AsyncIterator[Container]:
        async with opening(upstream)(settings) as container:
            container.events.override(providers.Object(container.counting()))
            yield container

    return await start(parts=parts, **settings)


async def shown(service: Service, path: str = "/history", headers: dict[str, str] | None = None) -> Any:
    answer = await service.get(path, headers)
    assert answer.status_code == 200
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(answer.text)


def text(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


def figures(page: Any) -> dict[str, str]:
    return {text(one.find("dt")): text(one.find("dd")) for one in page.iter("div") if one.find("dt") is not None}


def chart_data(page: Any) -> Any:
    (data,) = (one for one in page.iter("script") if one.get("id") == "history")
    return json.loads(data.text)


def rows(page: Any) -> list[list[str]]:
    return [[text(cell) for cell in row.findall("td")] for row in page.iter("tr")][1:]


async def pulled(service: Service, times: int = 1, headers: str = "") -> None:
    """Pull an image, and take a sample."""
    container = service.client.app.ctx.runtimes.current.container
    for _ in range(times):
        answer = await service.ask(f"GET /v2/team/secret/manifests/v1 HTTP/1.1\nHost: a{headers}")
        assert answer.status == 200
    container.clock().advance(10)
    container.history().record(container.clock().now())


async def test_the_numbers_of_pulls_are_shown(start: Start, upstream: FakeUpstream) -> None:
    service = await counting(start, upstream)
    await pulled(service, 4)
    page = await shown(service)
    found = figures(page)
    assert found["Hit ratio"] == "75 %"
    assert found["To clients"] == "124 B"
    assert found["From upstreams"] == "31 B"
    assert found["Saved by the cache"] == "93 B"
    assert re.fullmatch(r"[0-9.]+ m?s", found["Latency p50"])
    assert "3 hits, and 93 B saved" in text(page)
    newest, *others = rows(page)
    assert newest[:3] == ["75 %", "124 B", "31 B"]
    assert newest[5:] == ["0"] * 4
    assert others == [[MISSING, "0 B", "0 B", MISSING, MISSING, "0", "0", "0", "0"]] * 12
    assert "3 hits, and 93 B saved" in text(await shown(service, "/now"))


async def test_errors_are_counted_by_cause(start: Start, upstream: FakeUpstream) -> None:
    service = await counting(start, upstream)
    await service.get("/v2/team/secret/manifests/unknown")
    upstream.fault = UpstreamUnavailable("it is down")
    await service.get("/v2/team/secret/manifests/other")
    await service.get("/unknown")
    await pulled(service, 0)
    assert rows(await shown(service))[0][5:] == ["1", "0", "0", "1"]


@pytest.mark.parametrize("span", SPANS)
async def test_the_charts_have_a_value_or_a_gap_for_each_bucket(
    start: Start, upstream: FakeUpstream, span: str
) -> None:
    service = await counting(start, upstream)
    await pulled(service, 2)
    data = chart_data(await shown(service, f"/history?range={span}"))
    starts, step = data["starts"], SPANS[span].resolution.seconds
    assert starts == list(range(starts[0], starts[-1] + 1, step))
    assert starts[-1] - starts[0] >= SPANS[span].seconds - step
    series = {one["label"]: one["values"] for chart in data["charts"] for one in chart["series"]}
    assert {len(values) for values in series.values()} == {len(starts)}
    assert [one for one in series["Hit ratio"] if one is not None] == [0.5]
    assert sum(series["To clients"]) == 62
    assert len([one for one in series["Latency p99"] if one is not None]) == 1
    assert [chart["unit"] for chart in data["charts"]] == ["share", "bytes", "seconds", "count"]


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ("", "One hour"),
        ("?range=day", "One day"),
        ("?range=week", "One week"),
        ("?range=%22%3E%3Cscript%3E", "One hour"),
    ],
)
async def test_a_link_chooses_the_range(start: Start, query: str, chosen: str) -> None:
    page = await shown(await start(), f"/history{query}")
    links = [one for one in page.iter("a") if one.get("href", "").startswith("/history?")]
    assert [text(one) for one in links if one.get("aria-current")] == [chosen]
    assert [one.get("href") for one in links] == [f"/history?range={name}" for name in SPANS]


async def test_only_this_view_loads_the_library_of_charts(start: Start) -> None:
    service = await start()
    history, pulls = (await service.get("/history")).text, (await service.get("/pulls")).text
    assert "uPlot.iife.min" in history
    assert "uPlot" not in pulls


async def test_the_view_with_its_assets_is_small(start: Start, upstream: FakeUpstream) -> None:
    service = await counting(start, upstream)
    await pulled(service)
    for span in SPANS:
        page = await service.ask(f"GET /history?range={span} HTTP/1.1\nHost: a")
        size = len(page.body)
        for path in set(re.findall(r'"(/static/[^"]+)"', page.body.decode())):
            size += len((await service.ask(f"GET {path} HTTP/1.1\nHost: a\nAccept-Encoding: gzip")).body)
        assert size < 110_000


async def test_there_is_no_inline_code(start: Start) -> None:
    source = (await (await start()).get("/history")).text
    assert re.findall(r"<script(?! src=)(?! type=\"application/json\")|<style| style=| on\w+=", source) == []


# --- who sees what ---


async def test_every_viewer_sees_the_same_totals_and_no_name(start: Start, upstream: FakeUpstream) -> None:
    """The numbers name no repository and no account."""
    service = await counting(start, upstream, **ACCOUNTS)
    await pulled(service, 2, f"\nAuthorization: {ANN}")
    anonymous, ann = await shown(service), await shown(service, headers={"Authorization": ANN})
    assert figures(anonymous) == figures(ann)
    assert figures(anonymous)["Hit ratio"] == "50 %"
    assert chart_data(anonymous) == chart_data(ann)
    source = (await service.get("/history")).text
    for secret in ("secret", "team", "v1", "ann<", str(Digest.of(MANIFEST))):
        assert secret not in source


async def test_a_wrong_login_sees_nothing(start: Start) -> None:
    service = await start(**ACCOUNTS)
    answer = await service.get("/history", {"Authorization": basic("ann", "wrong")})
    assert answer.status_code == 401
    assert "Hit ratio" not in answer.text


async def test_without_the_page_the_section_is_unknown(start: Start) -> None:
    service = await start(page="off")
    assert (await service.get("/history")).status_code == 404


async def test_the_section_is_in_chinese_too(start: Start) -> None:
    source = (await (await start()).get("/history", {"Accept-Language": "zh"})).text
    assert "命中率" in source
    assert "每分钟字节数" in source
