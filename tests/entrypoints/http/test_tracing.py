"""Which spans a request makes, and where its trace is named."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dependency_injector import providers
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adapters.telemetry.traces import TraceSampler, open_tracer
from domain.errors import UpstreamUnreachable
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, until
from tests.fakes.parts import opening
from tests.fakes.upstream import FakeUpstream

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
MANIFEST = "/v2/team/app/manifests/v1"
BLOB = bytes(range(256)) * 1200


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced_parts(upstream: FakeUpstream, exporter: InMemorySpanExporter) -> Any:
    """A `container_factory` whose container makes traces."""

    @asynccontextmanager
    async def container_factory(settings: Settings, worker: int = 0) -> AsyncIterator[Container]:
        async with (
            opening(upstream)(settings) as container,
            open_tracer(exporter, {"service.name": "mirror"}, TraceSampler()) as tracer,
        ):
            container.tracer.override(providers.Object(tracer))
            yield container

    return container_factory


async def _spans(service: Service, exporter: InMemorySpanExporter, count: int) -> list[ReadableSpan]:
    """The spans that have ended."""
    processor = service.parts.tracer()._tracer.span_processor

    def are_there() -> bool:
        processor.force_flush()
        return len(exporter.get_finished_spans()) >= count

    await until(are_there)
    assert len(exporter.get_finished_spans()) == count
    return list(exporter.get_finished_spans())


async def test_a_request_makes_one_server_span_in_the_trace_of_the_client(
    start: Start, traced_parts: Any, exporter: InMemorySpanExporter
) -> None:
    service = await start(parts=traced_parts)
    service.upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2}')
    await service.get(f"{MANIFEST}?ns=docker.io", GIVEN)
    (span,) = await _spans(service, exporter, 1)
    assert (span.name, span.kind.name, span.status.status_code.name) == ("GET manifest", "SERVER", "UNSET")
    assert span.parent
    assert f"{span.parent.trace_id:032x}" == TRACE
    attributes = dict(span.attributes or {})
    assert attributes.pop("mirror.request_id")
    assert attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.response.body.size": 19,
        "http.route": "/v2/{name}/manifests/{reference}",
        "url.path": MANIFEST,
        "url.scheme": "http",
        "mirror.route": "manifest",
        "mirror.result": "miss",
        "mirror.upstream": service.parts.upstream().url,
    }


async def test_a_cached_response_is_found_whatever_its_trace_and_makes_no_span(
    start: Start, traced_parts: Any, exporter: InMemorySpanExporter
) -> None:
    service = await start(parts=traced_parts)
    service.upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2}')
    for number in range(1, 5):
        head = f"traceparent: 00-{number:032x}-00f067aa0ba902b7-01\ntracestate: a={number}"
        answer = await service.ask(f"GET {MANIFEST} HTTP/1.1\nHost: a\n{head}")
        assert answer.status == 200
    # The first is a miss, and the response to the second is kept.
    spans = await _spans(service, exporter, 2)
    assert [span.context.trace_id for span in spans] == [1, 2]


async def test_a_failure_of_the_upstream_makes_the_span_fail(
    start: Start, traced_parts: Any, exporter: InMemorySpanExporter
) -> None:
    service = await start(parts=traced_parts)
    service.upstream.fault = UpstreamUnreachable("down")
    answer = await service.get(MANIFEST)
    (span,) = await _spans(service, exporter, 1)
    assert answer.status_code >= 500
    assert span.status.status_code.name == "ERROR"
    assert (span.attributes or {})["error.type"] == str(answer.status_code)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_requests_of_monitoring_make_no_span(
    start: Start, traced_parts: Any, exporter: InMemorySpanExporter, path: str
) -> None:
    service = await start(parts=traced_parts)
    await service.get(path, GIVEN)
    await service.get("/nowhere")
    (span,) = await _spans(service, exporter, 1)
    assert span.name == "GET other"


async def test_a_download_has_a_span_below_the_request_that_started_it(
    start: Start, traced_parts: Any, exporter: InMemorySpanExporter
) -> None:
    service = await start(parts=traced_parts)
    digest = service.upstream.put_blob("team/app", BLOB)
    answer = await service.get(f"/v2/team/app/blobs/{digest}", GIVEN)
    assert answer.content == BLOB
    spans = {span.name: span for span in await _spans(service, exporter, 2)}
    download, request = spans["download"], spans["GET blob"]
    assert download.parent
    assert download.parent.span_id == request.context.span_id
    attributes = download.attributes or {}
    assert (attributes["mirror.digest"], attributes["mirror.bytes"]) == (str(digest), len(BLOB))


async def test_lines_of_the_log_name_the_trace(
    start: Start, traced_parts: Any, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = await start(parts=traced_parts)
    service.upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2}')
    request = f"GET {MANIFEST} HTTP/1.1\nHost: a\ntraceparent: {GIVEN['traceparent']}"
    for _ in range(3):
        await service.ask(request)
    span, _ = await _spans(service, exporter, 2)

    def lines() -> list[Any]:
        return [record for record in caplog.records if record.name == "docker_image_proxy.access"]

    await until(lambda: len(lines()) == 3)
    first, _, repeated = lines()
    assert (first.trace_id, first.span_id) == (TRACE, f"{span.context.span_id:016x}")
    assert not hasattr(repeated, "trace_id")


async def test_without_tracing_lines_name_no_trace(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = await start()
    await service.get("/v2/", GIVEN)
    lines = [record for record in caplog.records if record.name == "docker_image_proxy.access"]
    assert lines
    assert not any(hasattr(line, "trace_id") for line in lines)
