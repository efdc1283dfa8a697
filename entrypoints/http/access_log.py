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
from domain.events import BytesDelivered, RequestAnswered
from entrypoints.http.requests.addresses import plain_address

_LOG = logging.getLogger("docker_image_proxy.access")
# Sanic accepts any bytes as a method. Those outside the grammar (RFC 9110 section 5.6.2) could forge a line.
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
CLIENT_LEFT = "the client left"
_CLIENT_ERRORS, _SERVER_ERRORS = 400, 500


@dataclass
class BodyOutcome:
    """How many bytes of a response body were sent, and why the body ended early, if it did. `began_at`: when the first
    byte was sent, on the clock of `time.perf_counter`; None if it was sent with the rest.
    """

    size: int = 0
    fault: str | None = None
    began_at: float | None = None


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


def write(
    request: Request, status: int, outcome: BodyOutcome, seconds: float, record: RequestRecord, request_id: str
) -> None:
    """Write the line of one request. `seconds` is its duration; `record` has the account and the upstream status."""
    if not _LOG.isEnabledFor(logging.INFO):
        return
    metadata = {
        "method": request.method if _METHOD.fullmatch(request.method) else "?",
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
    _LOG.handle(line)


def _write(request: Request, status: int, outcome: BodyOutcome) -> None:
    ctx = request.ctx
    # A request that is refused while it is read has no runtime.
    runtime = getattr(ctx, "runtime", None) or request.app.ctx.runtimes.current
    seconds, events = time.perf_counter() - ctx.began, runtime.container.events()
    if ctx.is_content and outcome.size:
        events.emit(BytesDelivered(outcome.size))
    first = outcome.began_at - ctx.began if outcome.began_at is not None else None
    result = _result(status, outcome.fault, ctx.fault_result, ctx.record)
    events.emit(RequestAnswered(ctx.route, result, ctx.record.upstream, seconds, outcome.size, first))
    if ctx.record.pull:
        runtime.container.pull_log().add(ctx.record.pull, ctx.record.account, seconds, outcome.size)
    write(request, status, outcome, seconds, ctx.record, ctx.record.request_id)


def _result(status: int, fault: str | None, fault_result: str, record: RequestRecord) -> str:
    """One of RESULTS."""
    if fault == CLIENT_LEFT:
        return "client_left"
    if fault_result:
        return fault_result
    if status >= _CLIENT_ERRORS:
        return "mirror_fault" if status >= _SERVER_ERRORS else "refused"
    return record.result or "ok"
