"""Sends a body that is still arriving."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from sanic import Request

from domain.errors import RegistryError
from entrypoints.http.access_log import streamed


async def deliver(
    request: Request, status: int, headers: dict[str, str], media_type: str, pieces: AsyncIterator[bytes]
) -> None:
    """Stream the pieces at the client's pace; `send` waits while the client does not read.

    Before the first byte an error is raised, and answered as any other. After it nothing can be said any more:
    the connection is cut, without the last chunk where the length is open, so that the client sees a short
    body and never a false success.
    """
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
        except RegistryError as error:
            sent.failed(error.message)
            cast("asyncio.WriteTransport", request.transport).abort()
            return
        await response.eof()
