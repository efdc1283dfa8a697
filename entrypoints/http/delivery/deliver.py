"""Sends a body that is still arriving, or lies in a file."""

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
from entrypoints.http.access_log import Sent, streamed
from entrypoints.http.connection.connections import close_if_stopping
from entrypoints.http.delivery.copy_threads import ContentShort
from entrypoints.http.delivery.kernel_copy import FileSender

_LOG = logging.getLogger("docker_image_proxy")

Damaged = Callable[[], Awaitable[None]]


async def deliver(
    request: Request,
    status: int,
    headers: Header,
    media_type: str,
    pieces: AsyncIterator[Piece],
    *,
    damaged: Damaged | None = None,
) -> None:
    """Stream the pieces at the client's pace; sending waits while the client does not read.

    Before the first byte an error is raised, and answered as any other. After it nothing can be said any more:
    the connection is cut, without the last chunk where the length is open, so that the client sees a short
    body and never a false success. `damaged` is called before that when a file is shorter than its part.
    """
    if request.version == "1.0" and "Content-Length" not in headers:
        raise RequestInvalid(
            "the length of this content is not known, and HTTP/1.0 cannot send content of unknown length"
        )
    first = await anext(pieces, b"")
    with streamed(request, status) as sent:
        response = await request.respond(status=status, headers=headers, content_type=media_type)
        try:
            with closing(FileSender(request, response, sent.count)) as files:
                await _send(first, response, files, sent)
                async for piece in pieces:
                    await _send(piece, response, files, sent)
        except Exception as error:  # noqa: BLE001 - whatever it is, the body must not look complete
            _note(sent, error)
            if isinstance(error, ContentShort) and damaged:
                await _tell(damaged)
            await _cut(request)
        await response.eof()
        close_if_stopping(request)


async def _send(piece: Piece, response: BaseHTTPResponse, files: FileSender, sent: Sent) -> None:
    if isinstance(piece, ContentPart):
        await files.send(piece)
    elif piece:
        await response.send(piece)  # type: ignore[type-var]  # it sends whatever can be joined to bytes
        sent.count(len(piece))


def _note(sent: Sent, error: Exception) -> None:
    if isinstance(error, RegistryError):
        sent.failed(error.message)
    elif isinstance(error, ContentShort):
        sent.failed("the stored content is short")
    else:
        sent.failed("an error inside the mirror")
        _LOG.error("while a body was sent", exc_info=error)


async def _tell(damaged: Damaged) -> None:
    try:
        await damaged()
    except Exception as error:  # noqa: BLE001 - whatever it is, the connection is cut
        _LOG.error("while damaged content was dropped", exc_info=error)


async def _cut(request: Request) -> None:
    """Does not return: Sanic cancels this task when it hears that the connection is gone, as it does for a client
    that leaves, and then tries to finish nothing.
    """
    cast("asyncio.WriteTransport", request.transport).abort()
    await asyncio.Event().wait()
