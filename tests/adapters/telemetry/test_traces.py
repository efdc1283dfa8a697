"""Spans as OpenTelemetry records them, and the end of a tracer whose collector does not answer."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adapters.telemetry import traces
from adapters.telemetry.traces import TraceSampler, open_otlp_tracer, open_tracer
from application.ports.tracing import NO_SPAN, SpanKind
from domain.trace_context import TraceContext
from tests.e2e.support.processes import free_port

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ATTRIBUTES = {"service.name": "mirror"}
ALL = TraceSampler()


def _given(flags: str = "01", state: str = "") -> TraceContext:
    found = TraceContext.parse([f"00-{TRACE}-{SPAN}-{flags}"], [state] if state else [])
    assert found
    return found


def _ids(span: Any) -> tuple[str, str]:
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def test_a_span_continues_the_trace_of_the_client() -> None:
    exporter = InMemorySpanExporter()
    async with open_tracer(exporter, ATTRIBUTES, ALL) as tracer:
        span = tracer.begin(_given(state="a=1"))
        child = span.child("GET blob", SpanKind.CLIENT, {})
        assert child.headers == [
            ("traceparent", f"00-{TRACE}-{child.ids[1] if child.ids else ''}-01"),
            ("tracestate", "a=1"),
        ]
        child.fail("503")
        child.end()
        span.rename("GET blob")
        span.set({"mirror.route": "blob"})
        span.end()
    inner, outer = exporter.get_finished_spans()
    assert (inner.name, inner.kind.name, inner.status.status_code.name) == ("GET blob", "CLIENT", "ERROR")
    assert inner.attributes == {"error.type": "503"}
    assert inner.parent
    assert inner.parent.span_id == outer.context.span_id
    assert (outer.name, outer.kind.name) == ("GET blob", "SERVER")
    assert outer.attributes == {"mirror.route": "blob"}
    assert outer.parent
    assert f"{outer.parent.span_id:016x}" == SPAN
    assert {_ids(one)[0] for one in (inner, outer)} == {TRACE}
    assert outer.resource.attributes["service.name"] == "mirror"


async def test_a_request_without_a_trace_begins_one() -> None:
    async with open_tracer(InMemorySpanExporter(), ATTRIBUTES, ALL) as tracer:
        first, second = tracer.begin(None), tracer.begin(None)
    assert first.ids
    assert second.ids
    assert first.ids[0] != second.ids[0]


async def test_linked_spans_name_each_other() -> None:
    exporter = InMemorySpanExporter()
    async with open_tracer(exporter, ATTRIBUTES, ALL) as tracer:
        reader, download = tracer.begin(None), tracer.begin(None)
        reader.link(download)
        reader.link(NO_SPAN)
        reader.end()
    (span,) = exporter.get_finished_spans()
    assert [(f"{one.context.trace_id:032x}", f"{one.context.span_id:016x}") for one in span.links] == [download.ids]


@pytest.mark.parametrize(
    ("name", "flags", "is_recorded"),
    [
        ("always_on", "00", True),
        ("always_off", "01", False),
        ("traceidratio", "01", False),
        ("parentbased_always_on", "00", False),
        ("parentbased_always_off", "01", True),
        ("parentbased_traceidratio", "01", True),
    ],
)
async def test_the_sampler_decides_which_spans_are_recorded(name: str, flags: str, *, is_recorded: bool) -> None:
    exporter = InMemorySpanExporter()
    async with open_tracer(exporter, ATTRIBUTES, TraceSampler(name, 0.0)) as tracer:
        span = tracer.begin(_given(flags))
        assert span.headers[0][1].endswith("-01" if is_recorded else "-00")
        span.end()
    assert len(exporter.get_finished_spans()) == is_recorded


class _SilentExporter(SpanExporter):
    """A collector that does not answer before the end of the test."""

    def __init__(self) -> None:
        self.begun, self.released = Event(), Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.released.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.released.set()


async def test_a_silent_collector_delays_neither_requests_nor_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    exporter = _SilentExporter()
    began = time.monotonic()
    try:
        async with open_tracer(exporter, ATTRIBUTES, ALL) as tracer:
            for _ in range(5000):  # more than the queue holds
                tracer.begin(None).end()
            assert await asyncio.to_thread(exporter.begun.wait, 20)
            assert not exporter.released.is_set()
        assert time.monotonic() - began < 15
        assert not exporter.released.is_set()
    finally:
        exporter.released.set()
    assert "did not take the last spans" in caplog.text


@pytest.fixture
def exporter_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The thread of the exporter ends with the test. It draws from `random` before each attempt, and that would fail a
    test of Hypothesis in the same process.
    """
    monkeypatch.setattr(traces, "_EXPORT_SECONDS", 1.0)
    yield
    for thread in threading.enumerate():
        if thread.name == "end of traces":
            thread.join()


@pytest.mark.usefixtures("exporter_ends")
async def test_a_collector_that_is_down_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    async with open_otlp_tracer(address, {}, ATTRIBUTES, ALL) as tracer:
        tracer.begin(None).end()
    reported = [one for one in caplog.records if one.getMessage().startswith("traces cannot be sent: ")]
    assert len(reported) == 1
    assert not [one for one in caplog.records if one.name.startswith("opentelemetry")]
