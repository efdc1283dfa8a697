"""What other programs, damage or configuration can put into the way of the shared store."""

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from adapters.shared.object_layout import RECORD_BYTES, record_key
from adapters.shared.object_store import ObstoreSharedStore, open_object_store
from application.ports.shared import SharedContentDamaged, SharedUnavailable
from domain.digest import Digest
from domain.events import SharedStoreAsked, SharedStoreLost
from domain.part_layout import LARGEST_PART_BYTES, MIB
from tests.contracts.storage import HUB
from tests.fakes.events import RecordingEventSink

CONTENT = b"layer bytes"
CONTENT_SHA256 = hashlib.sha256(CONTENT).hexdigest()
DIGEST = Digest.of(CONTENT)


@asynccontextmanager
async def shared() -> AsyncIterator[tuple[ObstoreSharedStore, MemoryStore]]:
    """A store, and the client with which another program writes into it."""
    client = MemoryStore()
    store = ObstoreSharedStore(client, "memory", RecordingEventSink())
    yield store, client
    assert store.failure == ""
    await store.close()


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"<html>", bytes(3 * MIB), b"{" * MIB + b"\n"])
def test_a_foreign_object_in_place_of_a_record_is_not_found(content: bytes) -> None:
    async def go() -> None:
        async with shared() as (store, client):
            client.put(record_key(DIGEST), content)
            assert await store.find(DIGEST) is None

    asyncio.run(go())


def test_an_object_that_is_too_large_for_a_record_is_not_read() -> None:
    async def go() -> None:
        async with shared() as (store, client):
            client.put(record_key(DIGEST), bytes(RECORD_BYTES + 1), use_multipart=False)
            assert await store.find(DIGEST) is None

    asyncio.run(go())


def test_a_flipped_bit_in_a_part_is_found() -> None:
    async def go() -> None:
        async with shared() as (store, client):
            content = bytes(2 * MIB)
            part = await store.put_part(HUB, DIGEST, "lease", 0, content)
            client.put(part.key, content[:MIB] + b"\1" + content[MIB + 1 :], use_multipart=False)
            with pytest.raises(SharedContentDamaged):
                await store.get_part(part)

    asyncio.run(go())


def test_foreign_objects_are_neither_records_nor_parts() -> None:
    async def go() -> None:
        async with shared() as (store, client):
            for key in ("content/readme.txt", "content/sha256/ab/cd", "parts/x", "other/sha256/ab/cd", "content/a/b/c"):
                client.put(key, b"x")
            part = await store.put_part(HUB, DIGEST, "lease", 0, CONTENT)
            assert [found async for found in store.records()] == []
            assert [found.key async for found in store.parts()] == [part.key]

    asyncio.run(go())


@pytest.mark.parametrize(
    "changes",
    [{"key": "../../etc/passwd"}, {"key": ""}, {"size": 0}, {"size": 1 << 40}, {"sha256": "x"}, {"offset": 5}],
)
def test_a_part_that_no_replica_can_have_written_is_damaged_content(changes: dict[str, object]) -> None:
    async def go() -> None:
        async with shared() as (store, _):
            part = replace(await store.put_part(HUB, DIGEST, "lease", 0, CONTENT), **changes)
            with pytest.raises(SharedContentDamaged):
                await store.get_part(part)

    asyncio.run(go())


async def _listed(store: ObstoreSharedStore) -> None:
    _ = [found async for found in store.records()]


async def _written(store: ObstoreSharedStore) -> None:
    await store.put_part(HUB, DIGEST, "lease", 0, CONTENT)


@asynccontextmanager
async def answering(status: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """A server that answers all requests of the store with this status. Gives the heads of the requests."""
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        length = re.search(r"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(f'HTTP/1.1 {status}\r\nETag: "x"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'.encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for name, value in (("ALLOW_HTTP", "true"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        yield heads


@pytest.mark.parametrize("call", [_listed, _written])
def test_a_bucket_that_does_not_exist_is_a_failure_of_the_store(
    call: Callable[[ObstoreSharedStore], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 404 for a missing bucket as for a missing object."""

    async def go() -> None:
        async with answering("404 Not Found", monkeypatch) as heads:
            events = RecordingEventSink()
            store = ObstoreSharedStore(open_object_store("s3://missing"), "s3://missing", events, 0.1)
            with pytest.raises(SharedUnavailable):
                await call(store)
            async with asyncio.timeout(10):
                while len(heads) < 4:  # noqa: ASYNC110 - requests of trials, which nothing else signals
                    await asyncio.sleep(0.02)
            assert [type(event) for event in events.events if not isinstance(event, SharedStoreAsked)] == [
                SharedStoreLost
            ]
            assert store.failure
            await store.close()

    asyncio.run(go())


def test_a_part_is_written_by_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted upload in several requests would leave objects that no list shows."""

    async def go() -> None:
        async with answering("200 OK", monkeypatch) as heads:
            store = ObstoreSharedStore(open_object_store("s3://bucket"), "s3://bucket", RecordingEventSink())
            await store.put_part(HUB, DIGEST, "lease", 0, bytes(LARGEST_PART_BYTES))
            assert [head.partition(" ")[0] for head in heads] == ["PUT"]
            await store.close()

    asyncio.run(go())


@pytest.mark.parametrize(("unsigned", "signed_content"), [(None, "unsigned-payload"), ("false", CONTENT_SHA256)])
def test_the_content_of_a_part_is_hashed_once_more_only_for_a_bucket_that_demands_it(
    unsigned: str | None, signed_content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        if unsigned:
            monkeypatch.setenv("AWS_UNSIGNED_PAYLOAD", unsigned)
        async with answering("200 OK", monkeypatch) as heads:
            store = ObstoreSharedStore(open_object_store("s3://bucket"), "s3://bucket", RecordingEventSink())
            await _written(store)
            assert f"x-amz-content-sha256: {signed_content}" in heads[0].lower()
            await store.close()

    asyncio.run(go())


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Slow Down", "403 Forbidden", "418 I'm a teapot"])
def test_a_refusal_of_the_store_is_a_failure_of_the_store(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with answering(status, monkeypatch) as heads:
            store = ObstoreSharedStore(open_object_store("s3://bucket"), "s3://bucket", RecordingEventSink())
            with pytest.raises(SharedUnavailable):
                await store.find(DIGEST)
            assert len(heads) <= 2
            assert store.failure
            await store.close()

    asyncio.run(go())


def test_a_folder_that_cannot_be_written_is_a_failure_of_the_store(tmp_path: Path) -> None:
    async def go() -> None:
        address = f"file://{tmp_path}/shared"
        client = open_object_store(address)
        (tmp_path / "shared" / "parts").write_bytes(b"a file in place of the folder")
        store = ObstoreSharedStore(client, address, RecordingEventSink())
        with pytest.raises(SharedUnavailable):
            await store.put_part(HUB, DIGEST, "lease", 0, CONTENT)
        assert store.failure.startswith(address)
        await store.close()

    asyncio.run(go())


@pytest.mark.parametrize("address", ["ftp://x/y", "s3:", "", "memory:///", "http://bucket/prefix"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="s3, gs, az or file"):
        open_object_store(address)


@pytest.mark.parametrize(
    ("variable", "value", "address"),
    [
        ("AWS_SKIP_SIGNATURE", "perhaps", "s3://bucket/prefix"),
        ("GOOGLE_SERVICE_ACCOUNT", "/no/such/file", "gs://bucket/prefix"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "", "az://container/prefix"),
    ],
)
def test_an_invalid_option_of_the_store_is_refused(
    variable: str, value: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    if not value:
        monkeypatch.delenv(variable)
    with pytest.raises(ValueError, match=address) as caught:
        open_object_store(address)
    assert "\n" not in str(caught.value)


def test_a_store_has_its_prefix_and_the_options_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert [open_object_store(f"{scheme}://bucket/a/b/").prefix for scheme in ("s3", "az")] == ["a/b", "a/b"]
    assert open_object_store("s3://bucket").prefix is None


def test_the_hash_of_a_part_is_computed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a large part is hashed, the event loop serves others."""
    threads: list[threading.Thread] = []
    sha256 = hashlib.sha256

    def recorded(content: Any) -> Any:
        threads.append(threading.current_thread())
        return sha256(content)

    async def go() -> None:
        async with shared() as (store, _):
            content = bytes(MIB)
            monkeypatch.setattr(hashlib, "sha256", recorded)
            part = await store.put_part(HUB, DIGEST, "lease", 0, content)
            assert await store.get_part(part) == content

    asyncio.run(go())
    assert len(threads) == 2
    assert threading.main_thread() not in threads
