"""Traces by OpenTelemetry, sent to a collector by OTLP over HTTP."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, TraceState

from application.ports.tracing import Attributes, SpanKind, Tracer, TraceSpan
from domain.trace_context import TraceContext
from domain.value import Value

_LOG = logging.getLogger("docker_image_proxy")
_LIBRARY = logging.getLogger("opentelemetry")
_FLUSH_SECONDS = 1.0
"""The most that the end of the service waits for a collector that does not answer."""
_EXPORT_SECONDS = 10.0
"""The most that the exporter's thread spends on one batch. It drops the batch then."""
_QUEUE, _BATCH = 2048, 512
"""Spans. If the queue is full, the oldest are dropped."""
_SEND_SECONDS = 2.0
_QUIET_SECONDS = 60.0
_KINDS = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
}


class TraceSampler(Value, frozen=True):
    """`name`: as in OTEL_TRACES_SAMPLER; `ratio`: the share of the traces, for samplers that take one."""

    name: str = "parentbased_always_on"
    ratio: float = 1.0

    def make(self) -> Sampler:
        base = self.name.removeprefix("parentbased_")
        samplers = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF, "traceidratio": TraceIdRatioBased(self.ratio)}
        return samplers[base] if base == self.name else ParentBased(samplers[base])


class OtelSpan:
    """Implements TraceSpan."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self.recorded = span

    @property
    def ids(self) -> tuple[str, str] | None:
        context = self.recorded.get_span_context()
        return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        context = self.recorded.get_span_context()
        if not (ids := self.ids):
            return ()
        fields = [("traceparent", f"00-{ids[0]}-{ids[1]}-{context.trace_flags:02x}")]
        return [*fields, ("tracestate", context.trace_state.to_header())] if context.trace_state else fields

    def child(self, name: str, kind: SpanKind, attributes: Attributes) -> "OtelSpan":
        return _started(self._tracer, name, kind, self.recorded, attributes)

    def link(self, other: TraceSpan) -> None:
        if isinstance(other, OtelSpan):
            self.recorded.add_link(other.recorded.get_span_context())

    def rename(self, name: str) -> None:
        self.recorded.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self.recorded.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        self.recorded.set_attribute("error.type", reason)
        self.recorded.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self.recorded.end()


def _started(
    tracer: trace.Tracer, name: str, kind: SpanKind, parent: trace.Span | None, attributes: Attributes
) -> OtelSpan:
    # Not the context of the current task, which OpenTelemetry keeps itself: the port has its own.
    context = trace.set_span_in_context(parent, Context()) if parent else Context()
    span = tracer.start_span(name, context, _KINDS[kind], attributes)
    return OtelSpan(tracer, span)


class OtelTracer:
    """Implements Tracer."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("docker_image_proxy")

    def begin(self, given: TraceContext | None) -> TraceSpan:
        parent = NonRecordingSpan(_context_of(given)) if given else None
        return _started(self._tracer, "request", SpanKind.SERVER, parent, {})


def _context_of(given: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if given.is_sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([given.state]) if given.state else None
    return SpanContext(
        int(given.trace_id, 16), int(given.span_id, 16), is_remote=True, trace_flags=flags, trace_state=state
    )


class _LibraryLog(logging.Handler):
    """Writes the warnings of OpenTelemetry to our log, at most one a minute: a collector that is down causes several
    for each batch.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            _LOG.warning("traces cannot be sent: %s", record.getMessage())


@asynccontextmanager
async def open_tracer(
    exporter: SpanExporter, attributes: Mapping[str, str], sampler: TraceSampler
) -> AsyncIterator[Tracer]:
    """A tracer whose spans a thread of its own gives to the exporter, until the context ends. `attributes`: of the
    service. Called after the fork of the workers, because of the thread.
    """
    # Without `shutdown_on_exit`, which would wait for the collector without a limit.
    provider = TracerProvider(sampler.make(), Resource.create(dict(attributes)), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, _QUEUE, _SEND_SECONDS * 1000, _BATCH, _EXPORT_SECONDS * 1000)
    )
    try:
        yield OtelTracer(provider)
    finally:
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Send the last spans. Spans that a silent collector has not taken in time are lost."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # the wait below has ended, and the loop is closed
            loop.call_soon_threadsafe(ended.set)

    # A daemon: the interpreter does not wait for it, as it does for the threads of an executor.
    threading.Thread(target=shut_down, name="end of traces", daemon=True).start()
    try:
        await asyncio.wait_for(ended.wait(), _FLUSH_SECONDS)
    except TimeoutError:
        _LOG.warning("the collector of traces did not take the last spans within %.0f s", _FLUSH_SECONDS)


@asynccontextmanager
async def open_otlp_tracer(
    endpoint: str, headers: Mapping[str, str], attributes: Mapping[str, str], sampler: TraceSampler
) -> AsyncIterator[Tracer]:
    """As open_tracer, with a collector that takes OTLP over HTTP at this address. `headers`: for its login."""
    if not any(isinstance(handler, _LibraryLog) for handler in _LIBRARY.handlers):
        _LIBRARY.addHandler(_LibraryLog())
        _LIBRARY.propagate = False
    with requests.Session() as session:
        # Requests to the collector use no proxy of the environment, and send no login from ~/.netrc.
        session.trust_env = False
        exporter = OTLPSpanExporter(
            f"{endpoint}/v1/traces", headers=dict(headers), timeout=_EXPORT_SECONDS, session=session
        )
        async with open_tracer(exporter, attributes, sampler) as tracer:
            yield tracer
