"""The access log: one line per request, with method, path and account, but without query, credentials or tokens."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from sanic import Request
from sanic.response import BaseHTTPResponse

from application.ports.telemetry import RequestRecord, begin_record
from application.ports.tracing import NO_SPAN, TraceSpan, work_for
from domain.events import BytesDelivered, RequestAnswered
from domain.trace_context import TraceContext
from entrypoints.http.requests.addresses import plain_address

_LOG = logging.getLogger("docker_image_proxy.access")
# Sanic accepts any bytes as a method. Those outside the grammar (RFC 9110 section 5.6.2) could forge a line.
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
CLIENT_LEFT = "the client left"
_CLIENT_ERRORS, _SERVER_ERRORS = 400, 500
_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Requested every few seconds by programs that look after the service."""
_PATTERNS = {
    "manifest": "/v2/{name}/manifests/{reference}",
    "blob": "/v2/{name}/blobs/{digest}",
    "tags": "/v2/{name}/tags/list",
    "referrers": "/v2/{name}/referrers/{digest}",
    "catalog": "/v2/_catalog",
    "ping": "/v2/",
}
"""`http.route` of the routes that have one path."""


@dataclass
class BodyOutcome:
    """How many bytes of a response body were sent, and why the body ended early, if it did. `began_at`: when the first
    byte was sent, on the clock of `time.perf_counter`; None if it was sent with the rest. `counted`: as many of the
    bytes are in the metrics.
    """

    size: int = 0
    fault: str | None = None
    began_at: float | None = None
    counted: int = 0


def begin(request: Request) -> None:
    """Start the record of a request. Called before the request is handled."""
    request.ctx.record = begin_record(cast("Any", request).request_id)
    request.ctx.began = time.perf_counter()
    request.ctx.is_streamed = False
    request.ctx.is_content = False
    request.ctx.good_until = 0.0
    request.ctx.fault = None
    request.ctx.fault_result = ""
    request.ctx.route = "other"
    request.ctx.span = _begin_span(request)
    work_for(request.ctx.span)


def end(request: Request, response: BaseHTTPResponse) -> None:
    """Write the line of a complete response. `streamed` writes the line of a streamed response."""
    # There is no record if the client left before it sent a request.
    if hasattr(request.ctx, "record") and not request.ctx.is_streamed:
        size = 0 if request.method == "HEAD" else len(response.body or b"")
        _write(request, response.status, BodyOutcome(size, request.ctx.fault))


@contextmanager
def streamed(request: Request, status: int) -> Iterator[BodyOutcome]:
    """A context in which a body is streamed. Writes the line at its end."""
    request.ctx.is_streamed = True
    outcome = BodyOutcome(began_at=time.perf_counter())
    try:
        yield outcome
    except BaseException:
        outcome.fault = outcome.fault or CLIENT_LEFT
        raise
    finally:
        _write(request, status, outcome)


def count_bytes(request: Request, outcome: BodyOutcome) -> None:
    """Add the bytes of content that were sent since the last call to the metrics."""
    if request.ctx.is_content and outcome.size > outcome.counted:
        request.ctx.runtime.container.events().emit(BytesDelivered(outcome.size - outcome.counted))
        outcome.counted = outcome.size


def write(
    request: Request,
    status: int,
    outcome: BodyOutcome,
    seconds: float,
    record: RequestRecord,
    request_id: str,
    span: TraceSpan = NO_SPAN,
) -> None:
    """Write the line of one request. `seconds` is its duration; `record` has the account and the upstream status."""
    if not _LOG.isEnabledFor(logging.INFO):
        return
    metadata = {
        "method": _method_of(request) or "?",
        "path": request.path,
        "status": status,
        "bytes": outcome.size,
        "seconds": round(seconds, 4),
        "upstream_status": record.upstream_status,
        "account": record.account,
        "client": plain_address(request.ip),
        "fault": outcome.fault,
        "result": record.result or None,
        "request_id": request_id,
    }
    # The record is created here, because the logger would search for the calling line of code, which takes as long as
    # all the rest.
    shown = ["-" if value is None else value for value in metadata.values()]
    text = "{} {} {} {} bytes {}s upstream={} account={} client={} fault={} result={} request={}".format(*shown)
    line = logging.LogRecord(_LOG.name, logging.INFO, __file__, 0, text, (), None)
    line.__dict__.update(metadata)
    if ids := span.ids:
        line.trace_id, line.span_id = ids
    _LOG.handle(line)


def _write(request: Request, status: int, outcome: BodyOutcome) -> None:
    ctx = request.ctx
    # A request that is refused while it is read has no runtime.
    runtime = getattr(ctx, "runtime", None) or request.app.ctx.runtimes.current
    seconds, events = time.perf_counter() - ctx.began, runtime.container.events()
    count_bytes(request, outcome)
    first = outcome.began_at - ctx.began if outcome.began_at is not None else None
    result = _result(status, outcome.fault, ctx.fault_result, ctx.record)
    events.emit(RequestAnswered(ctx.route, result, ctx.record.upstream, seconds, outcome.size, first))
    if ctx.record.pull:
        address = plain_address(request.ip)
        runtime.container.pull_log().add(ctx.record.pull, ctx.record.account, address, seconds, outcome.size)
    _end_span(request, status, outcome, result)
    write(request, status, outcome, seconds, ctx.record, ctx.record.request_id, ctx.span)


def _method_of(request: Request) -> str:
    """The method of the request; "" if it could forge a line."""
    return request.method if _METHOD.fullmatch(request.method) else ""


def _begin_span(request: Request) -> TraceSpan:
    """The span of the request, in the trace that the client names."""
    if request.path in _UNTRACED:
        return NO_SPAN
    given = None
    if "traceparent" in request.headers:
        given = TraceContext.parse(request.headers.getall("traceparent"), request.headers.getall("tracestate", ()))
    runtime = getattr(request.ctx, "runtime", None) or request.app.ctx.runtimes.current
    span: TraceSpan = runtime.tracer.begin(given)
    return span


def _end_span(request: Request, status: int, outcome: BodyOutcome, result: str) -> None:
    """The span names neither the account nor the address of the client, and has no query, which may have a name to
    search for.
    """
    ctx = request.ctx
    if ctx.span.ids is None:
        return
    method = _method_of(request) or "_OTHER"
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "http.response.body.size": outcome.size,
        "url.path": request.path,
        "url.scheme": request.scheme,
        "mirror.route": ctx.route,
        "mirror.result": result,
        "mirror.request_id": ctx.record.request_id,
    }
    if pattern := _PATTERNS.get(ctx.route):
        attributes["http.route"] = pattern
    if ctx.record.upstream:
        attributes["mirror.upstream"] = ctx.record.upstream
    ctx.span.rename(f"{method} {ctx.route}")
    ctx.span.set(attributes)
    if status >= _SERVER_ERRORS or (outcome.fault and outcome.fault != CLIENT_LEFT):
        ctx.span.fail(str(status) if status >= _SERVER_ERRORS else result)
    ctx.span.end()


def _result(status: int, fault: str | None, fault_result: str, record: RequestRecord) -> str:
    """One of RESULTS."""
    if fault == CLIENT_LEFT:
        return "client_left"
    if fault_result:
        return fault_result
    if status >= _CLIENT_ERRORS:
        return "mirror_fault" if status >= _SERVER_ERRORS else "refused"
    return record.result or "ok"
