"""Sends a response body that is stored in a file or is still being downloaded."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import cast

from sanic import Request
from sanic.compat import Header

from application.blobs.blob_query import Piece
from domain.errors import RegistryError, RequestInvalid
from entrypoints.http.access_log import streamed
from entrypoints.http.connection.connection_table import close_if_stopping
from entrypoints.http.delivery.copy_threads import ContentShort
from entrypoints.http.delivery.kernel_copy import BodySender

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
            with closing(BodySender(request, response, outcome)) as sender:
                await sender.send(first)
                async for piece in pieces:
                    await sender.send(piece)
        except Exception as error:  # noqa: BLE001 - after any error, the body must not look complete
            outcome.fault = _fault(error)
            if isinstance(error, ContentShort) and damaged:
                await _report(damaged)
            # Sanic cancels this task when the connection is lost, as for a client that leaves, and then does not try to
            # complete the response.
            cast("asyncio.WriteTransport", request.transport).abort()
            await asyncio.Event().wait()
        await response.eof()
        close_if_stopping(request)


def _fault(error: Exception) -> str:
    """Why the body ends early, for the access log. An internal error is logged here."""
    match error:
        case RegistryError():
            return error.message
        case ContentShort():
            return "the stored content is too short"
    _LOG.error("an error while a response body was sent", exc_info=error)
    return "internal error"


async def _report(damaged: ReportDamage) -> None:
    try:
        await damaged()
    except Exception as error:  # noqa: BLE001 - the connection is aborted in any case
        _LOG.error("an error while damaged content was removed", exc_info=error)
