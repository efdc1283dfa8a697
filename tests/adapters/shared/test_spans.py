"""The spans of requests to the shared store and the shared index."""

from typing import Any

from obstore.store import MemoryStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from adapters.shared.object_store import ObstoreSharedStore
from adapters.shared.redis_connection import RedisConnection
from adapters.telemetry.traces import TraceSampler, open_tracer
from application.ports.shared import SharedUnavailable
from application.ports.tracing import NO_SPAN, work_for
from domain.digest import Digest
from domain.redis_address import RedisAddress
from tests.e2e.support.processes import free_port
from tests.fakes.events import RecordingEventSink


async def _use_both(index: str) -> None:
    """One request to a store that does not have the object, and one to an index that cannot be reached."""
    store = ObstoreSharedStore(MemoryStore(), "memory", RecordingEventSink())
    connection = RedisConnection(RedisAddress.parse(index), RecordingEventSink())
    try:
        assert await store.find(Digest.of(b"content")) is None
        try:
            await connection.run(Redis.ping)
        except SharedUnavailable:
            return
        raise AssertionError("there is no index at this address")
    finally:
        await connection.close()
        await store.close()


async def test_requests_for_a_client_have_spans_and_others_have_none() -> None:
    exporter, index = InMemorySpanExporter(), f"redis://127.0.0.1:{free_port()}"
    async with open_tracer(exporter, {"service.name": "mirror"}, TraceSampler()) as tracer:
        await _use_both(index)
        parent = tracer.begin(None)
        work_for(parent)
        await _use_both(index)
        work_for(NO_SPAN)
    found: list[Any] = list(exporter.get_finished_spans())
    assert [(span.name, span.kind.name, span.status.status_code.name) for span in found] == [
        ("get shared store", "CLIENT", "UNSET"),
        ("ask shared index", "CLIENT", "ERROR"),
    ]
    assert parent.ids
    assert {f"{span.parent.span_id:016x}" for span in found} == {parent.ids[1]}
    assert found[0].attributes == {"mirror.store": "memory", "mirror.result": "missing"}
    assert found[1].attributes["mirror.index"].startswith("127.0.0.1:")
