"""Event streams: a part of a page, sent again when it has changed (HTML Living Standard, section 9.2, Server-sent
events).

Nothing runs while no page is open. A stream ends within a second after a reload of the settings, so that the old ones
do not stay in memory, and after the service begins to stop. The browser then connects again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from sanic import Request

from application.page.viewer import Viewer
from domain.access import ANONYMOUS
from domain.errors import RequestInvalid
from entrypoints.http.access_log import streamed
from entrypoints.http.delivery.body_delivery import close_if_stopping
from entrypoints.http.page.renderings import RENDER_SECONDS
from entrypoints.http.runtime import runtime_of

_SILENT_LOOKS = 15
"""After so many looks without a change, a comment shows that the connection is alive."""
_COMMENT = b":\n\n"
_LONGEST_LOOKS = 5
"""What changes at each look is sent less and less often, at last after so many times the shortest pause: hundreds of
open pages must not delay the pulls that they show.
"""

Look = Callable[[], Awaitable[bytes]]


async def send_events(request: Request, viewer: Viewer, headers: Mapping[str, str], look: Look) -> None:
    """Send the event that `look` returns, and another one when it has changed, until the client leaves or the stream
    ends. Raises RequestInvalid for a client that cannot receive a body of unknown length.
    """
    if request.version == "1.0":
        raise RequestInvalid("an event stream needs HTTP/1.1")
    with streamed(request, 200) as outcome:
        response = await request.respond(status=200, headers=dict(headers), content_type="text/event-stream")
        sent, silent, pause = b"", 0, 1
        while _is_current(request, viewer):
            event = await look()
            is_new = event != sent
            silent = 0 if is_new else silent + 1
            if silent % _SILENT_LOOKS == 0:
                sent = event
                outgoing = event if is_new else _COMMENT
                await response.send(outgoing)
                outcome.size += len(outgoing)
            pause = min(pause + 1, _LONGEST_LOOKS) if is_new else 1
            await _sleep(request, viewer, pause)
        await response.eof()
    close_if_stopping(request)


async def _sleep(request: Request, viewer: Viewer, looks: int) -> None:
    """Wait until the next look, or until the stream ends. The pauses of streams differ a little, so that the events of
    many streams are not sent at the same moment.
    """
    for _ in range(looks):
        await asyncio.sleep(RENDER_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - nothing depends on it
        if not _is_current(request, viewer):
            return


def _is_current(request: Request, viewer: Viewer) -> bool:
    """Whether the settings and the account of the viewer are still those of the beginning."""
    runtime, context = runtime_of(request), request.app.ctx
    if context.is_stopping or context.runtimes.current is not runtime:
        return False
    stamp = runtime.container.page_logins().stamp(viewer.account)
    return viewer.account == ANONYMOUS or stamp == request.ctx.record.account_stamp
