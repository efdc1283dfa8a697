"""A request uses one runtime from its beginning to its end. A runtime that is not in use is closed after a reload."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from domain.digest import Digest
from entrypoints.http.runtime import Runtimes
from entrypoints.server.reload import apply_settings
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container
from tests.application.support.watched import held
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic, until
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import opening, settings_of
from tests.fakes.upstream import FakeUpstream

CONTENT = bytes(range(256)) * 4000
BLOB = f"/v2/team/app/blobs/{Digest.of(CONTENT)}"
MANIFEST = "/v2/team/app/manifests/v1"
ANN, BEN = basic("ann", "anns"), basic("ben", "bens")


def accounts(*logins: str) -> str:
    return ",".join(login.partition(" ")[2] for login in logins)


class Opened:
    """Implements `container_factory`, and records which containers were opened and closed."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._open = opening(upstream, StoppedClock())
        self.opened: list[Container] = []
        self.closed: list[Container] = []
        self.fault: Exception | None = None

    @asynccontextmanager
    async def __call__(self, settings: Settings, worker: int = 0) -> AsyncIterator[Container]:
        if self.fault:
            raise self.fault
        async with self._open(settings) as parts:
            self.opened.append(parts)
            yield parts
        self.closed.append(parts)


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream(public={"team/app"})
    upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2,"layers":[]}')
    upstream.put_blob("team/app", CONTENT)
    return upstream


@pytest.fixture
def opened(upstream: FakeUpstream) -> Opened:
    return Opened(upstream)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class TestCounting:
    """Without a server: requests as they are counted."""

    async def test_a_runtime_is_closed_when_its_last_request_has_ended(self, opened: Opened) -> None:
        runtimes = Runtimes(opened)
        await runtimes.begin(settings_of())
        first = runtimes.current
        requests = [ExitStack() for _ in range(3)]
        for request in requests:
            request.enter_context(first.in_use())
        requests[0].close()
        upkeep = first.container.upkeep()._tasks
        await runtimes.replace(settings_of(tag_ttl=5))
        assert runtimes.current.settings.tag_ttl == 5
        await until(lambda: all(task.done() for task in upkeep))
        requests[1].close()
        await turns()
        assert (opened.closed, len(runtimes._retiring._tasks)) == ([], 1)
        requests[2].close()
        await until(lambda: not runtimes._retiring._tasks)
        assert opened.closed == [first.container]
        await runtimes.close()
        assert opened.closed == opened.opened

    async def test_an_unused_runtime_is_closed_at_once(self, opened: Opened) -> None:
        runtimes = Runtimes(opened)
        await runtimes.begin(settings_of())
        for _ in range(20):
            await runtimes.replace(settings_of())
        await until(lambda: not runtimes._retiring._tasks)
        assert opened.closed == opened.opened[:-1]
        await runtimes.close()

    async def test_a_runtime_that_cannot_be_opened_leaves_the_current_one(self, opened: Opened) -> None:
        runtimes = Runtimes(opened)
        await runtimes.begin(settings_of())
        first = runtimes.current
        opened.fault = OSError("no")
        with pytest.raises(OSError, match="no"):
            await runtimes.replace(settings_of())
        assert runtimes.current is first
        await turns()
        assert (opened.closed, len(runtimes._retiring._tasks)) == ([], 0)
        await runtimes.close()

    async def test_the_end_of_the_worker_does_not_wait_for_requests(self, opened: Opened) -> None:
        runtimes = Runtimes(opened)
        await runtimes.begin(settings_of())
        with runtimes.current.in_use():
            await runtimes.replace(settings_of())
            with runtimes.current.in_use():
                async with asyncio.timeout(10):
                    await runtimes.close()
        assert opened.closed == opened.opened


async def reload(service: Service, **settings: object) -> None:
    await apply_settings(service.client.app, settings_of(**settings))


def generations_of(service: Service) -> Runtimes:
    found: Runtimes = service.client.app.ctx.runtimes
    return found


async def test_a_request_keeps_the_runtime_that_it_began_with(
    start: Start, upstream: FakeUpstream, opened: Opened
) -> None:
    service = await start(parts=opened, accounts=accounts(ANN), cache_dir="off")
    gate = held(upstream)
    first = asyncio.create_task(service.ask(f"GET {BLOB} HTTP/1.1\nHost: a\nAuthorization: {ANN}"))
    await until(lambda: bool(upstream.asked))
    await reload(service, accounts=accounts(BEN), cache_dir="off")
    for login, status in ((ANN, 401), (BEN, 200)):
        answer = await service.ask(f"HEAD {MANIFEST} HTTP/1.1\nHost: a\nAuthorization: {login}")
        assert answer.status == status
    assert opened.closed == []
    gate.set()
    assert (await first).body == CONTENT
    await until(lambda: opened.closed == opened.opened[:1])


async def test_the_request_of_a_client_that_leaves_is_counted(
    start: Start, upstream: FakeUpstream, opened: Opened
) -> None:
    service = await start(parts=opened, cache_dir="off")
    held(upstream)
    async with service.wire() as wire:
        await wire.send(f"GET {BLOB} HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: generations_of(service).current.requests == 1)
        await reload(service, cache_dir="off")
        assert opened.closed == []
    await until(lambda: opened.closed == opened.opened[:1])


async def test_requests_that_fail_are_counted_too(start: Start, upstream: FakeUpstream, opened: Opened) -> None:
    service = await start(parts=opened)
    for request in (
        f"GET {MANIFEST}x HTTP/1.1\nHost: a",
        "GET /nowhere HTTP/1.1\nHost: a",
        "PUT /v2/ HTTP/1.1\nHost: a",
    ):
        assert (await service.ask(request)).status >= 400
    assert (await service.ask("nonsense")).status == 400
    assert generations_of(service).current.requests == 0


async def test_running_downloads_are_finished_before_the_runtime_is_closed(
    start: Start, upstream: FakeUpstream, opened: Opened
) -> None:
    service = await start(parts=opened, cache_dir="/cache")
    gate = held(upstream)
    async with service.wire() as wire:
        await wire.send(f"GET {BLOB} HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(upstream.asked))
    await until(lambda: generations_of(service).current.requests == 0)
    await reload(service, cache_dir="/cache")
    await turns()
    assert opened.closed == [], "its client has left, but it may be of use to others"
    gate.set()
    await until(lambda: opened.closed == opened.opened[:1])


async def test_a_response_cached_before_a_reload_is_not_used_after_it(start: Start, opened: Opened) -> None:
    service = await start(parts=opened, accounts=accounts(ANN))
    request = f"GET {MANIFEST} HTTP/1.1\nHost: a\nAuthorization: {ANN}"
    async with service.wire() as wire:
        for expected in (200, 200, 401):
            if expected == 401:
                await reload(service, accounts=accounts(BEN))
            await wire.send(request.replace("\n", "\r\n") + "\r\n\r\n")
            assert (await wire.answer()).status == expected


async def test_the_realm_and_the_timeouts_are_the_new_ones(start: Start, opened: Opened) -> None:
    service = await start(parts=opened, accounts=accounts(ANN))
    await reload(
        service, accounts=accounts(ANN), self_registry="https://new.test", self_auth_service="new", shutdown_grace=7
    )
    challenge: Any = (await service.ask("GET /v2/ HTTP/1.1\nHost: a")).get("www-authenticate")
    assert 'realm="https://new.test/v2/auth"' in challenge
    assert 'service="new"' in challenge
    assert service.client.app.config.GRACEFUL_SHUTDOWN_TIMEOUT == 7
