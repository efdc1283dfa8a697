"""One line for each request. It names methods, paths and accounts; never a query, a credential or a token."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sanic import Request
from sanic.response import BaseHTTPResponse

from application.ports.telemetry import RequestRecord, begin_record
from domain.events import BytesDelivered
from entrypoints.http.requests.client_address import plain_address

_LOG = logging.getLogger("docker_image_proxy.access")
# Sanic takes any bytes for a method; those outside the grammar (RFC 9110 section 5.6.2) could forge a line.
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
CLIENT_LEFT = "the client left"


@dataclass
class Sent:
    """What of a streamed body went out, and why it ended early if it did."""

    size: int = 0
    fault: str | None = None

    def count(self, size: int) -> None:
        self.size += size

    def failed(self, reason: str) -> None:
        self.fault = reason


async def begin(request: Request) -> None:
    """Called before a request is handled."""
    request.ctx.record = begin_record()
    request.ctx.began = time.perf_counter()
    request.ctx.is_streamed = False
    request.ctx.is_content = False
    request.ctx.good_until = 0.0
    request.ctx.fault = None


async def end(request: Request, response: BaseHTTPResponse) -> None:
    """Called when the answer is ready; a streamed one writes its line when its last byte has gone."""
    if not hasattr(request.ctx, "record"):
        return  # the client left before it had sent a request
    if not request.ctx.is_streamed:
        size = 0 if request.method == "HEAD" else len(response.body or b"")
        _write(request, response.status, Sent(size, request.ctx.fault))


@contextmanager
def streamed(request: Request, status: int) -> Iterator[Sent]:
    """Around the sending of a streamed body."""
    request.ctx.is_streamed = True
    sent = Sent(fault=CLIENT_LEFT)
    try:
        yield sent
        if sent.fault == CLIENT_LEFT:
            sent.fault = None
    finally:
        _write(request, status, sent)


def write(request: Request, status: int, sent: Sent, seconds: float, record: RequestRecord) -> None:
    """The line of one request. `seconds`: how long it took; `record`: what was learnt on the way."""
    if not _LOG.isEnabledFor(logging.INFO):
        return
    metadata = {
        "method": request.method if _METHOD.fullmatch(request.method) else "?",
        "path": request.path,
        "status": status,
        "bytes": sent.size,
        "seconds": round(seconds, 4),
        "upstream_status": record.upstream_status,
        "account": record.account,
        "client": plain_address(request.ip),
        "fault": sent.fault,
    }
    # Made here, not by the logger: it would look for the line of code that logs, which takes as long as all the rest.
    line = logging.LogRecord(_LOG.name, logging.INFO, __file__, 0, _line(metadata), (), None)
    line.__dict__.update(metadata)
    _LOG.handle(line)


def _line(metadata: dict[str, Any]) -> str:
    shown = ["-" if value is None else value for value in metadata.values()]
    return "{} {} {} {} bytes {}s upstream={} account={} client={} fault={}".format(*shown)


def _write(request: Request, status: int, sent: Sent) -> None:
    if request.ctx.is_content and sent.size:
        request.ctx.part_set.parts.events().emit(BytesDelivered(sent.size))
    write(request, status, sent, time.perf_counter() - request.ctx.began, request.ctx.record)
