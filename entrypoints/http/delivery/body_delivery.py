"""Sends a response body that is stored in a file or is still being downloaded."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import cast

from sanic import Request
from sanic.compat import Header
from sanic.response import BaseHTTPResponse

from application.blobs.blob_query import Piece
from application.ports.content import ContentPart
from domain.errors import RegistryError, RequestInvalid
from entrypoints.http.access_log import BodyOutcome, streamed
from entrypoints.http.connection.connection_table import close_if_stopping
from entrypoints.http.delivery.copy_threads import ContentShort
from entrypoints.http.delivery.kernel_copy import FileSender

_LOG = logging.getLogger("docker_image_proxy")

ReportDamage = Callable[[], Awaitable[None]]


async def deliver(
    request: Request,
    status: int,
    headers: Header,
    media_type: str,
    pieces: AsyncIterator[Piece],
    *,
    damaged: ReportDamage | None = None,
) -> None:
    """Stream the pieces; sending waits while the client does not read.

    An error before the first byte is raised and becomes an error response. After the first byte no error can be sent:
    the connection is aborted, without the last chunk if the length is unknown, so that the client sees a short body and
    never a false success. If a stored file turns out to be too short, `damaged` is called first.
    """
    if request.version == "1.0" and "Content-Length" not in headers:
        raise RequestInvalid(
            "the length of this content is unknown, and HTTP/1.0 cannot send content of unknown length"
        )
    first = await anext(pieces, b"")
    with streamed(request, status) as outcome:
        response = await request.respond(status=status, headers=headers, content_type=media_type)
        try:
            with closing(FileSender(request, response, outcome.count)) as files:
                await _send(first, response, files, outcome)
                async for piece in pieces:
                    await _send(piece, response, files, outcome)
        except Exception as error:  # noqa: BLE001 - after any error, the body must not look complete
            _note(outcome, error)
            if isinstance(error, ContentShort) and damaged:
                await _report(damaged)
            await _abort(request)
        await response.eof()
        close_if_stopping(request)


async def _send(piece: Piece, response: BaseHTTPResponse, files: FileSender, outcome: BodyOutcome) -> None:
    if isinstance(piece, ContentPart):
        await files.send(piece)
    elif piece:
        await response.send(piece)  # type: ignore[type-var]  # it accepts any bytes-like object
        outcome.count(len(piece))


def _note(outcome: BodyOutcome, error: Exception) -> None:
    if isinstance(error, RegistryError):
        outcome.failed(error.message)
    elif isinstance(error, ContentShort):
        outcome.failed("the stored content is too short")
    else:
        outcome.failed("internal error")
        _LOG.error("an error while a response body was sent", exc_info=error)


async def _report(damaged: ReportDamage) -> None:
    try:
        await damaged()
    except Exception as error:  # noqa: BLE001 - the connection is aborted in any case
        _LOG.error("an error while damaged content was removed", exc_info=error)


async def _abort(request: Request) -> None:
    """Abort the connection and wait for the cancellation. Sanic cancels this task when the connection is lost, as for a
    client that leaves, and then does not try to complete the response.
    """
    cast("asyncio.WriteTransport", request.transport).abort()
    await asyncio.Event().wait()
