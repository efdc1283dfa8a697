"""The section that shows what the mirror is doing now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import html5lib
import pytest

from domain.allowance import RateLimit
from domain.errors import UpstreamThrottled, UpstreamUnreachable
from domain.events import BytesDelivered, BytesFetched, RequestAnswered
from domain.records import ANONYMOUS_CALLER
from entrypoints.http.page import event_streams
from entrypoints.http.worker_state import current_activity, report_worker_state
from tests.application.support.watched import BIG, held
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic, until
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.usefixtures("quick_streams")
ANN, BEN = basic("ann", "pw"), basic("ben", "pw")
ACCOUNTS = {"accounts": ",".join(login.removeprefix("Basic ") for login in (ANN, BEN))}


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_blob("team/app", BIG)
    upstream.put_blob("public/app", BIG)
    return upstream


def report(service: Service) -> None:
    """As the worker does each second."""
    activity = current_activity(service.client.app.ctx.runtimes)
    service.parts.activity_table().report(activity)


async def rows(service: Service, login: str | None = None, language: str = "en") -> list[list[str]]:
    """The text of each cell of each table."""
    headers = {"Accept-Language": language} | ({"Authorization": login} if login else {})
    answer = await service.get("/now", headers)
    assert answer.status_code == 200
    page: Any = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(answer.text)
    return [
        [" ".join("".join(cell.itertext()).split()) for cell in row if cell.tag in ("th", "td")]
        for body in page.iter("tbody")
        for row in body.iter("tr")
    ]


async def figures(service: Service) -> dict[str, str]:
    page: Any = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse((await service.get("/now")).text)
    return {pair.find("dt").text: pair.find("dd").text for pair in page.find(".//dl[@class='figures']")}


@asynccontextmanager
async def downloading(service: Service, login: str | None = None, name: str = "team/app") -> AsyncIterator[None]:
    """A download that is half done meanwhile."""
    digest = service.upstream.put_blob(name, BIG)
    gate = held(service.upstream)
    headers = {"Authorization": login} if login else {}
    request = asyncio.create_task(service.get(f"/v2/{name}/blobs/{digest}", headers))
    try:
        downloads = service.parts.downloads()
        await until(lambda: request.done() or any(state.present >= 60_000 for state in downloads.states()))
        await service.parts.background().close()
        report(service)
        yield
    finally:
        gate.set()
    assert (await request).content == BIG
    await until(lambda: downloads.states() == [])


async def test_a_download_is_shown_while_it_runs(start: Start) -> None:
    service = await start()
    async with downloading(service):
        _, row = await rows(service)
        assert row[0].startswith("upstream.test/team/app sha256:")
        assert (row[1], row[3:]) == ("60 kB of 307 kB", ["1", "1"])
        assert (await figures(service))["Running downloads"] == "1"
    report(service)
    assert len(await rows(service)) == 1
    assert (await figures(service))["Running downloads"] == "0"


async def test_a_viewer_without_the_right_sees_only_that_a_download_runs(start: Start) -> None:
    service = await start(**ACCOUNTS)
    async with downloading(service, ANN):
        assert [len(await rows(service, login)) for login in (ANN, None)] == [2, 1]
        nobodys = (await service.get("/now")).text
        assert "team/app" not in nobodys
        assert "No download is running that you may see." in nobodys
        assert "Log in to see the downloads" in nobodys
        assert (await figures(service))["Running downloads"] == "1"


async def test_a_download_that_began_before_a_reload_is_shown_after_it(start: Start) -> None:
    service = await start()
    runtimes = service.client.app.ctx.runtimes
    gate = held(service.upstream)
    request = asyncio.create_task(service.get(f"/v2/team/app/blobs/{service.upstream.put_blob('team/app', BIG)}"))
    before = runtimes.current
    await until(lambda: any(state.present for state in before.container.downloads().states()))
    await runtimes.replace(before.settings)
    assert runtimes.current is not before
    assert [str(one.repositories[0]) for one in current_activity(runtimes).downloads] == ["team/app"]
    gate.set()
    assert (await request).content == BIG
    await until(lambda: current_activity(runtimes).downloads == [])


async def test_the_worker_reports_its_downloads_each_second(start: Start) -> None:
    service = await start()
    task = asyncio.create_task(report_worker_state(service.client.app.ctx.runtimes, lambda: 0))
    gate = held(service.upstream)
    request = asyncio.create_task(service.get(f"/v2/team/app/blobs/{service.upstream.put_blob('team/app', BIG)}"))
    table = service.parts.activity_table()
    try:
        await until(lambda: any(activity.downloads for activity in table.all()))
        gate.set()
        assert (await request).content == BIG
        await until(lambda: table.all() == [])
    finally:
        gate.set()
        task.cancel()
        await task


async def test_the_state_of_an_upstream_and_its_reason_are_shown(start: Start) -> None:
    service = await start()
    await service.get("/v2/")  # the mirror learns how the upstream authenticates
    assert await rows(service) == [["upstream.test", "reachable", "not stated"]]
    service.upstream.fault = UpstreamThrottled("slow down", retry_after="90")
    assert (await service.get("/v2/team/app/manifests/1")).status_code == 429
    report(service)
    (row,) = await rows(service)
    assert row[1].startswith("limits requests slow down until 2027-01-15 ")
    service.upstream.fault = UpstreamUnreachable("connection <refused>")
    service.parts.clock().advance(6)
    report(service)
    (row,) = await rows(service)
    assert row[1] == "not reachable connection <refused>"


async def test_the_allowance_and_when_it_is_renewed_are_shown(start: Start) -> None:
    service = await start()
    service.parts.allowances().saw(service.parts.upstream(), ANONYMOUS_CALLER, RateLimit(100, 76, 21600))
    (row,) = await rows(service)
    assert row[2] == "76 of 100 in 6 h all 100 again by 2027-01-15 14:00 UTC"
    service.parts.clock().advance(21600)
    (row,) = await rows(service)
    assert row[2] == "76 of 100 in 6 h stated on 2027-01-15 08:00 UTC"


async def test_requests_and_bytes_per_second_are_shown(start: Start) -> None:
    service = await start()
    assert await figures(service) == {
        "Requests per second": "0",
        "Sent to clients": "0 B/s",
        "Received from upstreams": "0 B/s",
        "Running downloads": "0",
    }
    counting = service.parts.counting()
    for event in (RequestAnswered("blob", "ok", "", 0.1, 5, None), BytesDelivered(10**8), BytesFetched(10**10)):
        counting.emit(event)
    await asyncio.sleep(0.5)
    found = await figures(service)
    assert 0 < float(found["Requests per second"]) <= 1
    assert found["Sent to clients"].endswith(" MB/s")
    assert found["Received from upstreams"].endswith(" GB/s")


async def test_an_open_page_is_kept_up_to_date(start: Start) -> None:
    service = await start()
    async with service.wire() as wire:
        await wire.send("GET /now/events HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(10):
            await wire.reader.readuntil(b"Nothing is being downloaded.")
            async with downloading(service):
                await wire.reader.readuntil(b"team/app")
            report(service)
            await wire.reader.readuntil(b"Nothing is being downloaded.")


async def test_an_idle_page_sends_nothing_new(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "_SILENT_LOOKS", 5)
    service = await start()
    async with service.wire() as wire:
        await wire.send("GET /now/events HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(10):
            await wire.reader.readuntil(b"Nothing is being downloaded.")
            between = await wire.reader.readuntil(b":\n\n")
        assert b"<dl" not in between


async def test_the_section_is_in_chinese_too(start: Start) -> None:
    service = await start()
    assert (await rows(service, language="zh"))[0][1:] == ["可访问", "未说明"]


async def test_without_the_page_the_section_is_unknown_and_nothing_is_reported(start: Start) -> None:
    service = await start(page="off")
    assert (await service.get("/now")).status_code == 404
    async with downloading(service):
        assert service.parts.activity_table().all() == []
