"""Routes for operators and load balancers: /livez, /readyz and /metrics."""

import asyncio
from datetime import UTC, datetime

from sanic import Blueprint, HTTPResponse, Request
from sanic.exceptions import NotFound

from application.ports.telemetry import current_record
from domain.allowance import Allowance
from domain.authorization import Basic, parse_authorization
from domain.documents import print_json
from domain.errors import CredentialsRejected
from entrypoints.http.runtime import runtime_of


async def livez(request: Request) -> HTTPResponse:
    """The process answers; nothing else is checked."""
    request.ctx.route = "operation"
    return _json(200, {"status": "live"})


async def readyz(request: Request) -> HTTPResponse:
    """Ready if at least one upstream can be reached: if one is down, clients of the others can still be served. Each
    upstream is asked at most once in a few seconds. A replica is ready without the shared store and the shared index,
    too, because it then fetches for itself.
    """
    request.ctx.route = "operation"
    container = runtime_of(request).container
    upstreams = container.upstreams().upstreams
    statuses = await asyncio.gather(*map(container.report_status(), upstreams))
    is_ready = any(status.reachable for status in statuses)
    shown = [
        {
            "name": upstream.name,
            "url": status.url,
            "reachable": status.reachable,
            "reason": status.reason,
            "checked_at": _time(status.checked_at),
            "allowance": _allowance(container.allowances().newest(upstream)),
        }
        for upstream, status in zip(upstreams, statuses, strict=True)
    ]
    document: dict[str, object] = {"status": "ready" if is_ready else "not ready", "upstreams": shown}
    if services := container.shared_services():
        document["shared"] = [
            {
                "setting": service.setting,
                "address": service.address,
                "available": not service.failure,
                "reason": service.failure or None,
            }
            for service in services
        ]
    return _json(200 if is_ready else 503, document)


async def metrics(request: Request) -> HTTPResponse:
    """The metrics of all workers. They contain no names of repositories or accounts. Raises NotFound at PORT if there
    is a METRICS_PORT, and CredentialsRejected or TooManyAttempts if the caller is none of METRICS_ACCOUNTS.
    """
    request.ctx.route = "operation"
    runtime = runtime_of(request)
    if runtime.settings.metrics_port is not None and not getattr(request.ctx, "is_at_metrics_port", False):
        raise NotFound("the metrics of this mirror are at another port")
    if runtime.settings.metrics_accounts:
        await _require_login(request)
    page, content = runtime.container.metrics(), bytearray()
    for part in page.parts():
        content += part
        await asyncio.sleep(0)  # with many upstreams the page is long: other requests go on in between
    return HTTPResponse(bytes(content), 200, {"Cache-Control": "no-store"}, page.media_type)


async def _require_login(request: Request) -> None:
    authorization = parse_authorization(request.headers.get("authorization"))
    account = None
    if isinstance(authorization, Basic):
        check_login = runtime_of(request).container.metrics_login()
        account = await check_login(authorization.credentials, runtime_of(request).addresses.client_of(request))
    if account is None:
        raise CredentialsRejected("the metrics require a login")
    current_record().passed(account.name, account.stamp)


def _allowance(known: Allowance | None) -> dict[str, object] | None:
    """Null if the upstream never sent a rate limit."""
    if known is None:
        return None
    return {
        "limit": known.limit,
        "remaining": known.remaining,
        "window_seconds": known.window,
        "seen_at": _time(known.seen_at),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _json(status: int, document: dict[str, object]) -> HTTPResponse:
    return HTTPResponse(print_json(document), status, {"Cache-Control": "no-store"}, "application/json")


operations = Blueprint("operations")
operations.add_route(livez, "/livez", methods=("GET", "HEAD"))
operations.add_route(metrics, "/metrics", methods=("GET", "HEAD"))
operations.add_route(readyz, "/readyz", methods=("GET", "HEAD"))
