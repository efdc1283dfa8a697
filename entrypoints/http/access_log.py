"""One line for each request. It names methods, paths and accounts; never a query, a credential or a token."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sanic import Request
from sanic.response import BaseHTTPResponse

from application.ports.request_record import begin_record

_LOG = logging.getLogger("docker_image_proxy.access")
# Sanic takes any bytes for a method; those outside the grammar (RFC 9110 section 5.6.2) could forge a line.
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
CLIENT_LEFT = "the client left"
_LINE = (
    "%(method)s %(path)s %(status)s %(bytes)s bytes %(seconds)ss upstream=%(upstream_status)s "
    "account=%(account)s client=%(client)s fault=%(fault)s"
)


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


def _write(request: Request, status: int, sent: Sent) -> None:
    record = request.ctx.record
    facts = {
        "method": request.method if _METHOD.fullmatch(request.method) else "?",
        "path": request.path,
        "status": status,
        "bytes": sent.size,
        "seconds": round(time.perf_counter() - request.ctx.began, 4),
        "upstream_status": record.upstream_status,
        "account": record.account,
        "client": request.ip,
        "fault": sent.fault,
    }
    shown = {name: "-" if value is None else value for name, value in facts.items()}
    _LOG.info(_LINE, shown, extra=facts)
