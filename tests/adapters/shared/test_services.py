"""The shared store and the shared index as operators see them: what works, what does not, and why."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import pytest
from obstore.store import MemoryStore, S3Store

from adapters.shared.index_service import IndexService
from adapters.shared.object_store import ObjectStore, ObstoreSharedStore
from adapters.shared.redis_connection import RedisConnection
from adapters.shared.store_errors import explained
from adapters.shared.store_service import StoreService
from application.ports.shared import SharedRecord, SharedUnavailable
from domain.digest import Digest
from domain.events import SharedStoreAsked
from domain.redis_address import RedisAddress
from tests.contracts.storage import HUB
from tests.e2e.support.processes import free_port
from tests.e2e.support.valkey import Valkey
from tests.entrypoints.plain_server import served
from tests.fakes.events import RecordingEventSink

ADDRESS = "s3://images/mirror"
SECRET = "hunter2hunter2"
LISTED = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
DELETED = "<DeleteResult><Deleted><Key>some</Key></Deleted></DeleteResult>"


@asynccontextmanager
async def store_service(store: ObjectStore) -> AsyncIterator[StoreService]:
    shared = ObstoreSharedStore(store, ADDRESS, RecordingEventSink())
    try:
        yield StoreService(shared, ADDRESS)
    finally:
        await shared.close()


@asynccontextmanager
async def index_service(address: str) -> AsyncIterator[IndexService]:
    parsed = RedisAddress.parse(address)
    connection = RedisConnection(parsed, RecordingEventSink())
    try:
        yield IndexService(connection, parsed)
    finally:
        await connection.close()


def s3(url: str) -> S3Store:
    config: dict[str, Any] = {
        "aws_access_key_id": "id",
        "aws_secret_access_key": SECRET,
        "aws_region": "us-east-1",
        "aws_endpoint_url": url,
        "aws_allow_http": "true",
        "timeout": "1s",
    }
    once: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
    return S3Store("images", prefix="mirror", config=config, retry_config=once)


@contextmanager
def answering(status: int, given: str, removal: str = "") -> Iterator[str]:
    """A server that gives the same answer to all requests. `removal`: another body in the answer to a removal."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = removal if removal and self.command == "POST" else given
            if length := int(self.headers.get("Content-Length", 0)):
                self.rfile.read(length)
            self.send_response(status)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

    with served(Handler) as url:
        yield url


# --- the store ---


async def test_a_store_that_can_do_everything_is_empty_after_the_examination() -> None:
    store = MemoryStore()
    async with store_service(store) as service:
        assert (await service.examine()).warnings == ()
        await service.check()
        assert (service.setting, service.address, service.failure) == ("SHARED_STORE", ADDRESS, "")
    assert store.list().collect() == []


async def test_a_store_that_loses_objects_is_not_available() -> None:
    """It answers each request with success, and each object has other bytes than were written."""
    with answering(200, LISTED, DELETED) as url:
        async with store_service(s3(url)) as service:
            with pytest.raises(SharedUnavailable, match="an object that was just written cannot be read"):
                await service.examine()


REFUSAL = "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message><Key>content/sha256/ab</Key></Error>"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, REFUSAL, "answered 403 Forbidden (SignatureDoesNotMatch)"),
        (403, "", "answered 403 Forbidden"),
        (503, "<html>", "answered 503 Service Unavailable"),
    ],
)
async def test_a_refusal_is_explained_without_names_of_objects(status: int, body: str, reason: str) -> None:
    with answering(status, body) as url:
        async with store_service(s3(url)) as service:
            with pytest.raises(SharedUnavailable) as raised:
                await service.examine()
            assert service.failure == str(raised.value) == f"{ADDRESS}: {url} {reason}"


async def test_a_store_that_cannot_be_reached_is_explained() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with store_service(s3(url)) as service:
        with pytest.raises(SharedUnavailable, match=f"^{ADDRESS}: {url} cannot be reached: Connection refused$"):
            await service.check()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1ms - HTTP error: error",
            "there is no login for it: neither the variables of the store nor the machine provide one",
        ),
        (
            'Generic S3 error: Error performing GET http://no.test/a in 3ms - HTTP error\nkind: Connect, "dns error"',
            "http://no.test cannot be resolved",
        ),
        (
            "Generic S3 error: Error performing GET https://s3.test/a?X-Amz-Signature=abc \nkind: Connect, Invalid",
            "https://s3.test cannot be reached: the TLS handshake failed",
        ),
        (
            "Generic S3 error: Error performing GET https://s3.test/a in 3s - HTTP error\nkind: Timeout, TimedOut",
            "https://s3.test did not answer in time",
        ),
        (
            "Generic S3 error: Error performing GET https://s3.test/a in 3s - HTTP error\nkind: Decode",
            "https://s3.test closed the connection, or sent a response that is not valid",
        ),
        ("Bucket not found for path content/sha256/ab/cd\n\nDebug source: x", "Bucket not found"),
    ],
)
def test_a_failure_of_the_library_is_one_short_line(text: str, reason: str) -> None:
    assert explained(OSError(text)) == reason


# --- the index ---


async def test_an_index_that_can_do_everything_is_empty_after_the_examination(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with index_service(valkey_server.url) as service:
        examined = await service.examine()
        await service.check()
        address = f"127.0.0.1:{valkey_server.port}"
        assert (service.setting, service.address, service.failure) == ("SHARED_INDEX", address, "")
    assert examined.found.startswith("Valkey ")
    assert examined.warnings == ()
    assert valkey_server.command("DBSIZE") == 0


async def test_a_limited_index_that_removes_nothing_is_a_warning(valkey_server: Valkey) -> None:
    valkey_server.command("CONFIG", "SET", "maxmemory", "100mb")
    try:
        async with index_service(valkey_server.url) as service:
            [warning] = (await service.examine()).warnings
            assert "maxmemory-policy is noeviction" in warning
            valkey_server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
            assert (await service.examine()).warnings == ()
    finally:
        valkey_server.command("CONFIG", "SET", "maxmemory", "0")
        valkey_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_login_that_may_not_ask_for_the_version_can_be_used(valkey_server: Valkey) -> None:
    user = ("ACL", "SETUSER", "mirror", "on", f">{SECRET}", "~dip:*", "+@all", "-@dangerous")
    valkey_server.command(*user)
    try:
        async with index_service(f"redis://mirror:{SECRET}@127.0.0.1:{valkey_server.port}") as service:
            examined = await service.examine()
            assert examined.found.startswith("Redis of unknown version")
            assert service.failure == ""
    finally:
        valkey_server.command("ACL", "DELUSER", "mirror")


async def test_a_login_that_may_not_write_is_explained(valkey_server: Valkey) -> None:
    valkey_server.command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@all", "-set")
    try:
        async with index_service(f"redis://reader:{SECRET}@127.0.0.1:{valkey_server.port}") as service:
            with pytest.raises(SharedUnavailable) as raised:
                await service.examine()
            assert SECRET not in str(raised.value)
            assert service.failure == str(raised.value)
    finally:
        valkey_server.command("ACL", "DELUSER", "reader")


async def test_an_index_that_cannot_be_reached_is_explained() -> None:
    port = free_port()
    async with index_service(f"redis://:{SECRET}@127.0.0.1:{port}") as service:
        with pytest.raises(SharedUnavailable, match=f"^127.0.0.1:{port} cannot be reached: Connection refused$"):
            await service.check()
        assert urlsplit(f"//{service.address}").port == port


# --- what is counted ---


async def test_each_request_to_the_store_is_counted_once_with_its_result() -> None:
    events = RecordingEventSink()
    content = b"some content"
    digest = Digest.of(content)
    record = SharedRecord(len(content), frozenset({HUB.fingerprint}), is_public=True, content=content)
    store = ObstoreSharedStore(MemoryStore(), ADDRESS, events)
    try:
        assert await store.find(digest) is None
        await store.put(digest, record)
        assert await store.find(digest) == record
        assert [found async for found, _ in store.records()] == [digest]
        await store.drop(digest)
    finally:
        await store.close()
    counted = [(event.operation, event.result) for event in events.events if isinstance(event, SharedStoreAsked)]
    assert [each for each in counted if each[0] != "list"] == [
        ("get", "missing"),
        ("put", "ok"),
        ("get", "ok"),
        ("delete", "ok"),
    ]
    assert ("list", "ok") in counted


async def test_a_request_without_an_answer_is_counted_as_failed() -> None:
    events = RecordingEventSink()
    store = ObstoreSharedStore(s3(f"http://127.0.0.1:{free_port()}"), ADDRESS, events)
    try:
        for _ in range(2):  # the breaker is open at the second time, so nothing is sent
            with pytest.raises(SharedUnavailable):
                await store.find(Digest.of(b"some content"))
    finally:
        await store.close()
    assert [event for event in events.events if isinstance(event, SharedStoreAsked)] == [
        SharedStoreAsked("get", "failed")
    ]
