"""The streams that keep a part of the page up to date."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from entrypoints.http.page import event_streams
from entrypoints.http.page.renderings import SharedRenderings
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, Wire, basic
from tests.fakes.parts import settings_of
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.usefixtures("quick_streams")
ANN, BEN = basic("ann", "pw"), basic("ben", "pw")
STREAM = "GET /pulls/events HTTP/1.1\r\nHost: a\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    for tag in ("v1", "v2"):
        upstream.put_manifest("team/app", tag, b'{"schemaVersion":2,"layers":[]}')
    return upstream


def accounts(*logins: str) -> str:
    return ",".join(login.removeprefix("Basic ") for login in logins)


@asynccontextmanager
async def stream(service: Service, fields: str = "") -> AsyncIterator[Wire]:
    async with service.wire() as wire:
        await wire.send(f"{STREAM}{fields}\r\n")
        yield wire


async def until(wire: Wire, text: str) -> bytes:
    """What comes up to this text."""
    async with asyncio.timeout(10):
        return await wire.reader.readuntil(text.encode())


async def pull(service: Service, tag: str, login: str | None = None) -> None:
    headers = {"Authorization": login} if login else {}
    assert (await service.get(f"/v2/team/app/manifests/{tag}", headers)).status_code == 200


async def test_a_stream_sends_the_list_and_each_change_of_it(start: Start) -> None:
    service = await start()
    async with stream(service) as wire:
        head = await until(wire, "\r\n\r\n")
        assert b"text/event-stream" in head
        assert b"no-store" in head
        await until(wire, "There are no pulls to show you")
        await pull(service, "v1")
        await until(wire, "team/app:v1<")
        await pull(service, "v2")
        event = await until(wire, "\n\n")
        while b"v2" not in event:
            event = await until(wire, "\n\n")
        lines = event.decode().strip().splitlines()
        assert all(re.match(r"data: |[0-9a-f]+$|$", line) for line in lines)


async def test_what_did_not_change_is_not_sent_again_but_a_comment_shows_that_the_stream_is_alive(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "_SILENT_LOOKS", 3)
    service = await start()
    async with stream(service) as wire:
        await until(wire, "There are no pulls")
        rest = await until(wire, ":\n\n")
        rest += await until(wire, ":\n\n")
        assert b"There are no pulls" not in rest


async def test_a_stream_ends_after_a_reload_and_its_runtime_is_closed(start: Start) -> None:
    service = await start()
    runtimes = service.client.app.ctx.runtimes
    async with stream(service) as wire:
        await until(wire, "There are no pulls")
        before = runtimes.current
        await runtimes.replace(settings_of())
        await until(wire, LAST_CHUNK.decode())
        async with asyncio.timeout(10):
            await before.unused()


async def test_a_stream_and_its_connection_end_when_the_service_stops(start: Start) -> None:
    service = await start()
    async with stream(service) as wire:
        await until(wire, "There are no pulls")
        service.client.app.ctx.is_stopping = True
        assert (await wire.rest()).endswith(LAST_CHUNK)
        service.client.app.ctx.is_stopping = False


async def test_a_stream_ends_when_the_password_of_its_account_changes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(accounts=accounts(ANN))
    async with stream(service, f"Authorization: {ANN}\r\n") as wire:
        await until(wire, "There are no pulls")
        monkeypatch.setattr(service.parts.policy().accounts, "stamp", lambda _: "another")
        await until(wire, LAST_CHUNK.decode())


async def test_each_stream_shows_what_its_viewer_may_see(start: Start) -> None:
    service = await start(accounts=accounts(ANN, BEN))
    await pull(service, "v1", ANN)
    async with (
        stream(service) as nobodys,
        stream(service, f"Authorization: {ANN}\r\n") as anns,
        stream(service, f"Authorization: {BEN}\r\n") as bens,
    ):
        assert b"team/app" not in await until(nobodys, "\n\n")
        of_ann, of_ben = await until(anns, "</div>"), await until(bens, "</div>")
        assert b"by you" in of_ann
        assert b"by you" not in of_ben
        assert b"team/app:v1" in of_ben
        await pull(service, "v2", ANN)
        await asyncio.sleep(0.5)
        assert b"team/app" not in await nobodys.silence(0.3)


async def test_a_wrong_login_gets_no_stream(start: Start) -> None:
    service = await start(accounts=accounts(ANN))
    answer = await service.ask(f"{STREAM}Authorization: {BEN}".strip())
    assert answer.status == 401


async def test_a_client_of_http_1_0_gets_an_error(start: Start) -> None:
    service = await start()
    answer = await service.ask("GET /pulls/events HTTP/1.0\nHost: a")
    assert answer.status == 400


async def test_without_the_page_there_is_no_stream(start: Start) -> None:
    service = await start(page="off")
    assert (await service.get("/pulls/events")).status_code == 404


async def test_streams_of_the_same_viewer_share_one_rendering() -> None:
    shared, count = SharedRenderings(), 0

    async def render() -> str:
        nonlocal count
        count += 1
        await asyncio.sleep(0)
        return f"{count}\nof several"

    first = b"data: 1\ndata: of several\n\n"
    assert set(await asyncio.gather(*(shared.get("a", render) for _ in range(200)))) == {first}
    assert await shared.get("a", render) == first
    assert (await shared.get("b", render)).startswith(b"data: 2\n")
    await asyncio.sleep(0.06)
    assert (await shared.get("a", render)).startswith(b"data: 3\n")


async def test_what_always_changes_is_sent_less_often(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []
    numbers = iter(range(1000))

    async def changing(*_: object) -> bytes:
        return b"data: %d\n\n" % next(numbers)

    async def no_pause(_: object, __: object, looks: int) -> None:
        pauses.append(looks)
        await asyncio.sleep(0.01)

    monkeypatch.setattr(SharedRenderings, "get", changing)
    monkeypatch.setattr(event_streams, "_sleep", no_pause)
    service = await start()
    async with stream(service) as wire:
        await until(wire, "data: 7\n")
    assert pauses[:7] == [2, 3, 4, 5, 5, 5, 5]
