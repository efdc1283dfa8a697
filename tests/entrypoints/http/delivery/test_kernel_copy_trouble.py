"""Short files, clients that leave or stop reading, and resources that must be released."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from domain.errors import UpstreamBroken
from entrypoints.http.access_log import CLIENT_LEFT
from tests.entrypoints.http.conftest import Body, FileService, ServeFiles, reset
from tests.entrypoints.service import Wire, until

pytestmark = pytest.mark.slow

SIZE = 20_000_000
WHOLE = (0, SIZE)
BEYOND = (SIZE - 3_000_000, SIZE + 3_000_000)
SHORT = "the stored content is too short"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = request.param()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _warm(files: FileService) -> int:
    """How many descriptors there are between two answers, once everything that stays is there."""
    before = _descriptors()
    async with files.wire() as wire:
        await wire.send(files.get(files.body((0, 10))))
        await wire.answer()
        await until(lambda: len(files.connections) == 1)
    await until(lambda: not files.connections and _descriptors() <= before + 3)
    await asyncio.sleep(0.05)
    files.log.clear()
    return _descriptors()


async def _stuck(files: FileService, body: Body, wire: Wire, more: str = "") -> None:
    """Asks, and reads nothing until the service has sent all that it can."""
    await wire.send(files.get(body) + more)
    await until(lambda: bool(body.open_now))
    await asyncio.sleep(0.2)


async def _one_line(files: FileService) -> Any:
    await until(lambda: bool(files.lines))
    (line,) = files.lines
    return line


@pytest.mark.parametrize("length", [-1, None])
async def test_short_file_is_noticed_and_dropped(serve_files: ServeFiles, length: int | None) -> None:
    files = await serve_files()
    body = files.body(b"first", BEYOND, b"last", length=length)
    async with files.wire() as wire:
        await wire.send(files.get(body) + files.get(body))
        answer = await wire.answer()
        assert (answer.is_whole, answer.body[:5]) == (False, b"first")
        assert answer.body[5:] == files.content[BEYOND[0] :][: len(answer.body) - 5]
        assert await wire.rest() == b""
    line = await _one_line(files)
    assert (line.status, line.bytes, line.fault) == (200, 5 + 3_000_000, SHORT)
    assert (body.damaged, body.open_now) == (1, 0)


async def test_short_file_is_cut_off_also_when_it_cannot_be_dropped(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body((SIZE, SIZE + 1))
    body.drop = _fails  # type: ignore[method-assign]
    async with files.wire() as wire:
        await wire.send(files.get(body))
        assert not (await wire.answer()).is_whole
    assert (await _one_line(files)).fault == SHORT


async def _fails() -> None:
    raise OSError("no")


async def test_a_file_that_cannot_be_read_is_an_internal_error(serve_files: ServeFiles) -> None:
    files = await serve_files()
    for length in (-1, None):
        body = files.body(WHOLE, length=length)
        body.path = body.path.parent
        async with files.wire() as wire:
            await wire.send(files.get(body))
            assert not (await wire.answer()).is_whole
    assert [(line.bytes, line.fault) for line in files.lines] == [(0, "internal error")] * 2


async def test_no_more_is_sent_than_was_announced(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body((0, 1000), (1000, 3000), length=2000)
    async with files.wire() as wire:
        await wire.send(files.get(body))
        assert not (await wire.answer()).is_whole
    assert (await _one_line(files)).bytes == 1000


async def test_an_error_of_the_source_is_a_response_before_and_an_abort_after_the_first_part(
    serve_files: ServeFiles,
) -> None:
    files = await serve_files()
    before, after = files.body(UpstreamBroken("cut")), files.body((0, 5_000_000), UpstreamBroken("cut"), length=SIZE)
    async with files.wire() as wire:
        await wire.send(files.get(before))
        answer = await wire.answer()
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (502, "UNAVAILABLE")
        await wire.send(files.get(after))
        assert not (await wire.answer()).is_whole
    await until(lambda: len(files.lines) == 2)
    assert (files.lines[1].bytes, files.lines[1].fault) == (5_000_000, "cut")


async def test_client_that_stops_reading_is_cut_off(serve_files: ServeFiles) -> None:
    files = await serve_files(silence=0.6)
    normal = await _warm(files)
    body = files.body(*[WHOLE] * 20)
    began = time.monotonic()
    async with files.wire() as wire:
        await wire.send(files.get(body))
        await until(lambda: bool(body.open_now))
        await until(lambda: not body.open_now)
        assert 0.6 <= time.monotonic() - began < 5
        answer = await wire.answer()
        assert not answer.is_whole
        line = await _one_line(files)
        assert (line.bytes, line.fault) == (len(answer.body), CLIENT_LEFT)
    await until(lambda: _descriptors() == normal)


async def test_client_that_reads_slowly_is_not(serve_files: ServeFiles) -> None:
    files = await serve_files(silence=0.6)
    body = files.body(*[WHOLE] * 5)
    async with files.wire() as wire:
        await wire.send(files.get(body))
        await wire.reader.readuntil(b"\r\n\r\n")
        for _ in range(20):
            await wire.reader.readexactly(SIZE // 4)
            await asyncio.sleep(0.1)
    assert ((await _one_line(files)).bytes, files.lines[0].fault) == (5 * SIZE, None)


async def test_many_clients_that_leave_leave_nothing_behind(serve_files: ServeFiles) -> None:
    files = await serve_files()
    normal = await _warm(files)
    body = files.body(*[WHOLE] * 20)
    for number in range(200):
        async with files.wire() as wire:
            await wire.send(files.get(body))
            if number % 2:
                await wire.reader.readexactly(100_000)
    await until(lambda: not body.open_now and not files.connections and _descriptors() == normal)
    began = time.process_time()
    await asyncio.sleep(1)
    assert time.process_time() - began < 0.2
    assert {line.fault for line in files.lines} <= {CLIENT_LEFT}


async def test_waiting_for_the_producer_costs_nothing(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(WHOLE, 1.0, WHOLE)
    async with files.wire() as wire:
        await wire.send(files.get(body))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        assert await wire.reader.readexactly(SIZE) == files.content
        began = time.process_time()
        await asyncio.sleep(0.7)
        assert time.process_time() - began < 0.15
        assert await wire.reader.readexactly(SIZE) == files.content


async def test_flood_of_requests_is_not_read_while_files_are_sent(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(*[(0, 1), 0.01] * 100)
    async with files.wire() as wire:
        wire.writer.write((files.get(body) * 500_000).encode())
        await until(lambda: bool(body.open_now))
        await asyncio.sleep(0.5)
        (protocol,) = files.connections
        assert body.open_now
        assert len(protocol.recv_buffer) < 1_000_000


async def test_client_that_leaves_while_it_is_waited_for_is_noticed(serve_files: ServeFiles) -> None:
    """By a reset, also after more requests than Sanic reads ahead, and by an end with bytes that it never read."""
    files = await serve_files()
    normal = await _warm(files)
    body = files.body(*[WHOLE] * 20)
    for more in ("", files.get(body) * 2000):
        async with files.wire() as wire:
            await _stuck(files, body, wire, more)
            reset(wire.writer)
            await until(lambda: not body.open_now)
    async with files.wire() as wire:
        await _stuck(files, body, wire)
        wire.writer.close()
        await until(lambda: not body.open_now)
    await until(lambda: _descriptors() == normal)
    assert {line.fault for line in files.lines} == {CLIENT_LEFT}
    assert all(line.bytes for line in files.lines)


async def test_no_descriptor_is_closed_while_a_thread_uses_it(
    serve_files: ServeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = await serve_files()
    normal = await _warm(files)
    gate, held, send = threading.Event(), [], os.sendfile

    def sendfile(connection: int, file: int, offset: int, size: int) -> int:
        held.append((connection, file))
        assert gate.wait(20)
        return send(connection, file, offset, size)

    monkeypatch.setattr(os, "sendfile", sendfile)
    body = files.body(WHOLE)
    async with files.wire() as wire:
        await wire.send(files.get(body))
        await until(lambda: bool(held))
        targets = [_targets(numbers) for numbers in held]
        (protocol,) = files.connections
        protocol.transport.abort()
        for _ in range(3):  # what Sanic may do more than once: a time-out, then a connection that is lost
            await asyncio.sleep(0.1)
            protocol._task.cancel()
        assert [_targets(numbers) for numbers in held] == targets
        assert (body.open_now, files.lines) == (1, [])
        gate.set()
        await until(lambda: not body.open_now)
        with suppress(asyncio.IncompleteReadError):
            await wire.reader.readexactly(SIZE)
    await until(lambda: _descriptors() == normal)
    assert (await _one_line(files)).bytes > 0


def _targets(numbers: tuple[int, int]) -> list[str]:
    return [str(Path(f"/proc/self/fd/{number}").readlink()) for number in numbers]


async def test_threads_end_with_the_service(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(*[WHOLE] * 20)
    async with files.wire() as wire:
        await _stuck(files, body, wire)
        assert any(thread.name.startswith("copy") for thread in threading.enumerate())
        await files.client.close()
        files.client.app.ctx.copy_threads.close()
        await until(lambda: not body.open_now)
    assert not any(thread.name.startswith("copy") for thread in threading.enumerate())
