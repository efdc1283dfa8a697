"""What becomes of a connection after its answer."""

from typing import cast

from sanic import Request
from sanic.http.http1 import Http


def close_if_stopping(request: Request) -> None:
    """While the service stops, no connection is kept for a further request."""
    # Compared with None: a stream whose answer has been sent counts as false.
    if request.app.ctx.is_stopping and request.stream is not None:
        cast("Http", request.stream).keep_alive = False
