"""Sends a body that is still arriving."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import cast

from sanic import Request

from domain.errors import RegistryError, RequestInvalid
from entrypoints.http.access_log import Sent, streamed
from entrypoints.http.connections import close_if_stopping

_LOG = logging.getLogger("docker_image_proxy")


async def deliver(
    request: Request, status: int, headers: dict[str, str], media_type: str, pieces: AsyncIterator[bytes]
) -> None:
    """Stream the pieces at the client's pace; `send` waits while the client does not read.

    Before the first byte an error is raised, and answered as any other. After it nothing can be said any more:
    the connection is cut, without the last chunk where the length is open, so that the client sees a short
    body and never a false success.
    """
    if request.version == "1.0" and "Content-Length" not in headers:
        raise RequestInvalid("the length of this content is not known, and HTTP/1.0 has no way to send it then")
    first = await anext(pieces, b"")
    with streamed(request, status) as sent:
        response = await request.respond(status=status, headers=headers, content_type=media_type)
        try:
            if first:
                await response.send(first)
                sent.count(len(first))
            async for piece in pieces:
                await response.send(piece)
                sent.count(len(piece))
        except Exception as error:  # noqa: BLE001 - whatever it is, the body must not look complete
            _note(sent, error)
            await _cut(request)
        await response.eof()
        close_if_stopping(request)


def _note(sent: Sent, error: Exception) -> None:
    if isinstance(error, RegistryError):
        sent.failed(error.message)
    else:
        sent.failed("an error inside the mirror")
        _LOG.error("while a body was sent", exc_info=error)


async def _cut(request: Request) -> None:
    """Does not return: Sanic cancels this task when it hears that the connection is gone, as it does for a client
    that leaves, and then tries to finish nothing.
    """
    cast("asyncio.WriteTransport", request.transport).abort()
    await asyncio.Event().wait()
