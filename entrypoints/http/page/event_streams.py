"""Event streams: a part of a page, sent again when it has changed (HTML Living Standard, section 9.2, Server-sent
events).

Nothing runs while no page is open. A stream ends within a second after a reload of the settings, so that the old ones
do not stay in memory, and after the service begins to stop. The browser then connects again.
"""

import asyncio
from collections.abc import Mapping

from sanic import Request

from application.page.viewer import Viewer
from domain.access import ANONYMOUS
from domain.errors import RequestInvalid
from entrypoints.http.access_log import streamed
from entrypoints.http.delivery.body_delivery import close_if_stopping
from entrypoints.http.page.renderings import RENDER_SECONDS, Render
from entrypoints.http.runtime import runtime_of

_SILENT_LOOKS = 15
"""After so many looks without a change, a comment shows that the connection is alive."""


async def send_events(request: Request, viewer: Viewer, headers: Mapping[str, str], render: Render) -> None:
    """Send what `render` returns, and again whenever it has changed, until the client leaves or the stream ends. Raises
    RequestInvalid for a client that cannot receive a body of unknown length.
    """
    if request.version == "1.0":
        raise RequestInvalid("an event stream needs HTTP/1.1")
    with streamed(request, 200) as outcome:
        response = await request.respond(status=200, headers=dict(headers), content_type="text/event-stream")
        sent, silent = None, 0
        while _is_current(request, viewer):
            text = await render()
            silent = silent + 1 if text == sent else 0
            if silent % _SILENT_LOOKS == 0:
                event = _event(text) if text != sent else ":\n\n"
                await response.send(event)
                outcome.size += len(event.encode())
                sent = text
            await asyncio.sleep(RENDER_SECONDS)
        await response.eof()
    close_if_stopping(request)


def _event(text: str) -> str:
    return "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"


def _is_current(request: Request, viewer: Viewer) -> bool:
    """Whether the settings and the account of the viewer are still those of the beginning."""
    runtime, context = runtime_of(request), request.app.ctx
    if context.is_stopping or context.runtimes.current is not runtime:
        return False
    stamp = runtime.container.policy().stamp(viewer.account)
    return viewer.account == ANONYMOUS or stamp == request.ctx.record.account_stamp
