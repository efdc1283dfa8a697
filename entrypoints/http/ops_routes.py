"""What operators and their load balancers ask."""

import json
from datetime import UTC, datetime

from sanic import Blueprint, HTTPResponse, Request

from entrypoints.container import Container


async def livez(_: Request) -> HTTPResponse:
    """The process answers; nothing else is looked at."""
    return _json(200, {"status": "live"})


async def readyz(request: Request) -> HTTPResponse:
    """Whether the upstream can be reached; asked of it once in a few seconds at most."""
    parts: Container = request.app.ctx.parts
    status = await parts.report_status()(parts.upstream())
    upstream = {
        "url": status.url,
        "reachable": status.reachable,
        "reason": status.reason,
        "checked_at": datetime.fromtimestamp(status.checked_at, UTC).isoformat(timespec="seconds"),
    }
    word = "ready" if status.reachable else "not ready"
    return _json(200 if status.reachable else 503, {"status": word, "upstream": upstream})


async def metrics(request: Request) -> HTTPResponse:
    """Sums over all workers, whichever answers; no names of repositories or accounts."""
    parts: Container = request.app.ctx.parts
    content, media_type = parts.metrics().render()
    return HTTPResponse(content, 200, {"Cache-Control": "no-store"}, media_type)


def _json(status: int, document: dict[str, object]) -> HTTPResponse:
    return HTTPResponse(json.dumps(document), status, {"Cache-Control": "no-store"}, "application/json")


operations = Blueprint("operations")
operations.add_route(livez, "/livez", methods=("GET", "HEAD"))
operations.add_route(metrics, "/metrics", methods=("GET", "HEAD"))
operations.add_route(readyz, "/readyz", methods=("GET", "HEAD"))
