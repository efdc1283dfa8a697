"""Bodies from files arrive complete, one after another on one connection."""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from entrypoints.http.delivery import body_delivery
from tests.e2e.support.certificates import make_authority
from tests.entrypoints.http.conftest import FileService, Part, ServeFiles
from tests.entrypoints.service import Wire, until

WHOLE = (0, 20_000_000)
SEQUENCES: dict[str, list[Part]] = {
    "whole": [WHOLE],
    "in parts": [(0, 1), (1, 70_000), (70_000, 9_000_001), (9_000_001, 20_000_000)],
    "backwards": [(19_000_000, 20_000_000), (0, 5)],
    "bytes around": [b"before", WHOLE, b"after"],
    "many bytes first": [b"x" * 8_000_000, (5, 6_000_000), b"y" * 300_000, (0, 3), b"z"],
    "empty parts": [(7, 7), (0, 10), b"", (3, 3), (10, 20)],
    "nothing but empty parts": [(7, 7), (0, 0)],
    "nothing": [],
}


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = request.param()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    authority = make_authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certificate, authority.server.key)
    return context


def _client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _all_arrive(files: FileService, wire: Wire) -> None:
    """Each body three times, and then something else, over the one connection."""
    for body in files.bodies * 3:
        await wire.send(files.get(body))
        answer = await wire.answer()
        assert (answer.status, answer.is_whole, answer.body == files.expected(body)) == (200, True, True)
        is_chunked = body.length is None and bool(answer.body)
        assert answer.get("transfer-encoding") == ("chunked" if is_chunked else None)
        assert answer.get("content-length") == (None if is_chunked else str(len(answer.body)))
    await wire.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await wire.answer()).body == b"another answer"


@pytest.mark.parametrize("name", SEQUENCES)
async def test_bodies_arrive_one_after_another(serve_files: ServeFiles, name: str) -> None:
    files = await serve_files()
    files.body(*SEQUENCES[name])
    async with files.wire() as wire:
        await _all_arrive(files, wire)
    (size,) = {len(files.expected(body)) for body in files.bodies}
    assert [(line.bytes, line.fault) for line in files.lines[:3]] == [(size, None)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQUENCES)
async def test_bodies_of_unknown_length_are_framed(serve_files: ServeFiles, name: str) -> None:
    files = await serve_files()
    files.body(*SEQUENCES[name], length=None)
    async with files.wire() as wire:
        await _all_arrive(files, wire)


@pytest.mark.slow
async def test_bodies_arrive_inside_tls(serve_files: ServeFiles, server_tls: ssl.SSLContext) -> None:
    files = await serve_files(tls=server_tls)
    files.body(*SEQUENCES["bytes around"])
    files.body(*SEQUENCES["in parts"], length=None)
    files.body()
    async with files.wire(_client_tls()) as wire:
        await _all_arrive(files, wire)


@pytest.mark.parametrize(
    ("quick", "slow", "first", "largest"), [(60.0, 90.0, [64, 128, 256], 480), (-2.0, -1.0, [64, 64, 64], 64)]
)
async def test_only_quick_clients_inside_tls_get_large_chunks(
    serve_files: ServeFiles, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch,
    quick: float, slow: float, first: list[int], largest: int,
) -> None:  # fmt: skip
    """`quick` and `slow`: the seconds for a chunk that count as such, so that each client is the one or the other."""
    monkeypatch.setattr(body_delivery, "_QUICK", quick)
    monkeypatch.setattr(body_delivery, "_SLOW", slow)
    files = await serve_files(tls=server_tls)
    threads, sizes = files.client.app.ctx.copy_threads, list[int]()
    read = threads.read

    async def watched_read(file: int, start: int, stop: int) -> bytes:
        sizes.append((stop - start) // 1024)
        return bytes(await read(file, start, stop))

    monkeypatch.setattr(threads, "read", watched_read)
    body = files.body((0, 2_000_000))
    async with files.wire(_client_tls()) as wire:
        await wire.send(files.get(body))
        assert (await wire.answer()).body == files.expected(body)
    assert (sizes[:3], max(sizes)) == (first, largest)


async def test_pipelined_requests_are_answered_in_turn(serve_files: ServeFiles) -> None:
    files = await serve_files()
    first, second = files.body(WHOLE), files.body(b"head", (1_000_000, 13_000_000))
    async with files.wire() as wire:
        await wire.send(files.get(first) + files.get(second) + files.get(first))
        for body in (first, second, first):
            assert (await wire.answer()).body == files.expected(body)


async def test_head_and_files_take_turns(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(WHOLE)
    async with files.wire() as wire:
        for _ in range(2):
            await wire.send(files.get(body, method="HEAD"))
            assert (await wire.answer(head=True)).get("content-length") == str(body.length)
            await wire.send(files.get(body))
            assert (await wire.answer()).body == files.content


async def test_old_protocol_gets_the_file_and_the_end(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(WHOLE)
    async with files.wire() as wire:
        await wire.send(files.get(body, "1.0"))
        answer = await wire.answer()
        assert (answer.get("connection"), answer.body == files.content) == ("close", True)
        assert await wire.rest() == b""


async def test_client_that_will_send_no_more_gets_its_body(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(WHOLE)
    async with files.wire() as wire:
        await wire.send(files.get(body))
        await wire.reader.readuntil(b"200 OK\r\n")
        wire.writer.write_eof()
        rest = await wire.rest()
    assert rest.endswith(files.content[-1000:])
    assert len(rest.partition(b"\r\n\r\n")[2]) == body.length
    assert (files.lines[0].bytes, files.lines[0].fault) == (body.length, None)


@pytest.mark.slow
async def test_slow_client_gets_all_and_holds_no_thread(serve_files: ServeFiles) -> None:
    """More of them than there are threads, and a fast one is served all the same."""
    files = await serve_files()
    body = files.body(WHOLE)
    async with asyncio.TaskGroup() as group:
        stopped = asyncio.Event()
        for _ in range(40):
            group.create_task(_idle(files, stopped))
        await until(lambda: body.open_now == 40)
        await asyncio.sleep(0.3)  # until they are stuck
        async with asyncio.timeout(10), files.wire() as wire:
            await wire.send(files.get(body))
            assert (await wire.answer()).body == files.content
        stopped.set()


def _small() -> socket.socket:
    """A socket with little room."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.setblocking(False)
    return connection


async def _idle(files: FileService, stopped: asyncio.Event) -> None:
    with _small() as connection:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", files.client.port))
        await asyncio.get_running_loop().sock_sendall(connection, files.get(files.bodies[0]).encode())
        await stopped.wait()


@pytest.mark.slow
async def test_slow_client_that_becomes_fast_gets_all(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(*[WHOLE] * 3)
    loop, got = asyncio.get_running_loop(), bytearray()
    with _small() as connection:
        await loop.sock_connect(connection, ("127.0.0.1", files.client.port))
        await loop.sock_sendall(connection, files.get(body).encode())
        async with asyncio.timeout(30):
            while not files.sends_later:
                got += await loop.sock_recv(connection, 16384)
                await asyncio.sleep(0.02)
            while len(got) < 3 * len(files.content):
                got += await loop.sock_recv(connection, 1 << 20)
            while len(got.partition(b"\r\n\r\n")[2]) < 3 * len(files.content):
                got += await loop.sock_recv(connection, 1 << 20)
    assert got.partition(b"\r\n\r\n")[2] == files.content * 3


@pytest.mark.slow
async def test_slow_client_that_leaves_is_noticed(serve_files: ServeFiles) -> None:
    files = await serve_files()
    body = files.body(*[WHOLE] * 3)
    loop = asyncio.get_running_loop()
    with _small() as connection:
        await loop.sock_connect(connection, ("127.0.0.1", files.client.port))
        await loop.sock_sendall(connection, files.get(body).encode())
        async with asyncio.timeout(30):
            while not files.sends_later:
                await loop.sock_recv(connection, 16384)
                await asyncio.sleep(0.02)
    await until(lambda: not body.open_now)


def _holds_short_segments(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))


async def test_the_kernel_fills_segments_until_a_part_has_been_sent(
    serve_files: ServeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = await serve_files()
    found, send = set(), os.sendfile

    def sendfile(connection: int, file: int, offset: int, size: int) -> int:
        found.add(_holds_short_segments(connection))
        return send(connection, file, offset, size)

    monkeypatch.setattr(os, "sendfile", sendfile)
    body = files.body((0, 5_000_001), 30.0)
    async with files.wire() as wire:
        await wire.send(files.get(body))
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.reader.readexactly(5_000_001)
        (protocol,) = files.connections
        connection = protocol.transport.get_extra_info("socket").fileno()
        await until(lambda: not _holds_short_segments(connection))
    assert found == {True}


async def test_content_that_is_not_in_a_file_is_read_and_sent(serve_files: ServeFiles) -> None:
    files = await serve_files()
    files.body(b"before", (5, 600_005), (0, 3)).is_elsewhere = True
    async with files.wire() as wire:
        await _all_arrive(files, wire)
