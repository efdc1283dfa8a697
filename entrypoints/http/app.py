"""The Sanic application: routes, limits, errors, and the parts that live as long as a worker."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import BadURL, RequestCancelled, SanicException
from sanic.http.http1 import Http
from sanic.response import BaseHTTPResponse

from domain.errors import MirrorFault, RegistryError, RequestNotSent, UpstreamFault
from entrypoints.http import access_log
from entrypoints.http.connection.connections import close_if_stopping
from entrypoints.http.part_sets import PartSets
from entrypoints.http.responses.errors import error_response, sanic_error_response, unexpected_error_response
from entrypoints.http.responses.response_cache import CachingSanic
from entrypoints.http.routes.operation_routes import operations
from entrypoints.http.routes.pull_routes import pulls
from entrypoints.http.routes.search_routes import searches
from entrypoints.http.routes.token_routes import tokens
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container, open_container

_LOG = logging.getLogger("docker_image_proxy")

# Tokens of large clouds pass Sanic's 8 KiB, and its ceiling of 16.
_HEADER_LIMIT = 32 * 1024
_REQUEST_LINE_LIMIT = 8 * 1024
_BODY_LIMIT = 64 * 1024
_SILENCE_SECONDS = 120
_LAST_SECONDS = 1.0

App = Sanic[Any, Any]
OpenParts = Callable[..., AbstractAsyncContextManager[Container]]
"""Called with the settings and, by name, the `row` that is this worker's in what all workers share."""


class AnyTargetRequest(Request[Any, Any]):
    """A request whose target may be anything; Sanic's own raises where it cannot parse one, even while it builds
    the answer that says so, and then logs the whole of it, query and all.
    """

    def __init__(self, url_bytes: bytes, *args: Any, **others: Any) -> None:
        try:
            super().__init__(url_bytes, *args, **others)
        except BadURL:
            super().__init__(b"*", *args, **others)
        if not self._parsed_url.path:
            # RFC 9112 section 3.2.2: of a whole address without a path, the path is "/".
            super().__init__(b"/", *args, **others)


def create_app(settings: Settings, name: str = "docker_image_proxy", open_parts: OpenParts = open_container) -> App:
    """The application. `open_parts` gives it its parts; tests give others."""
    Http.HEADER_CEILING = max(Http.HEADER_CEILING, _HEADER_LIMIT + _REQUEST_LINE_LIMIT)
    app = CachingSanic(name, configure_logging=False, request_class=AnyTargetRequest)
    app.config.update(
        {
            "ACCESS_LOG": False,
            "FALLBACK_ERROR_FORMAT": "json",
            "KEEP_ALIVE_TIMEOUT": _SILENCE_SECONDS,
            "MOTD": False,
            "REQUEST_MAX_HEADER_SIZE": _HEADER_LIMIT + _REQUEST_LINE_LIMIT,
            "REQUEST_MAX_SIZE": _BODY_LIMIT,
            **timeouts(settings),
        }
    )
    app.blueprint([pulls, tokens, searches, operations])
    app.ctx.settings = settings
    app.ctx.is_stopping = False
    app.ctx.certificates = None
    _register_parts(app, open_parts)
    _register_errors(app)
    app.register_middleware(access_log.begin, "request")
    app.register_middleware(_finish, "response")
    app.register_middleware(access_log.end, "response")
    return app


def timeouts(settings: Settings) -> dict[str, float]:
    """Sanic's time limits, in seconds."""
    return {
        "GRACEFUL_SHUTDOWN_TIMEOUT": settings.shutdown_grace,
        "REQUEST_TIMEOUT": settings.request_timeout,
        # Counts silence only: a slow client keeps its download as long as it reads. Longer than a slow upstream.
        "RESPONSE_TIMEOUT": max(settings.delivery_idle, 3 * settings.longest_silence),
    }


async def _finish(request: Request, response: BaseHTTPResponse) -> None:
    """The last touch to every answer, a 401 included: old docker clients believe no challenge without the version."""
    close_if_stopping(request)
    response.headers.setdefault("Docker-Distribution-Api-Version", "registry/2.0")
    if namespace := getattr(request.ctx, "namespace", None):
        # The OCI distribution specification wants it said, "Registry Proxying".
        response.headers.setdefault("OCI-Namespace", namespace)
    if isinstance(response, HTTPResponse) and hasattr(request.ctx, "record") and request.ctx.good_until:
        request.ctx.part_set.response_cache.keep(request, response, request.ctx.good_until)


def _register_parts(app: App, open_parts: OpenParts) -> None:
    async def start(app: App) -> None:
        app.ctx.opened = AsyncExitStack()
        app.ctx.part_sets = PartSets(partial(open_parts, row=worker_row(app)))
        await app.ctx.part_sets.begin(app.ctx.settings)
        app.ctx.opened.push_async_callback(app.ctx.part_sets.close)

    async def stop(app: App) -> None:
        await app.ctx.opened.aclose()
        if _is_worker(app):
            await _end_what_is_left()

    app.before_server_start(start)
    app.after_server_stop(stop)


async def _end_what_is_left() -> None:
    """The last step of a worker's loop: requests that were cut off may have begun to ask the upstream once more. A name
    that is being looked up cannot be called back; uvloop reports its answer as an error of the closed loop, which
    nobody can do anything about.
    """
    loop = asyncio.get_running_loop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        done, _ = await asyncio.wait(left, timeout=_LAST_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at, so that nobody complains
    loop.set_exception_handler(_ignore_when_closed)


def _ignore_when_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not loop.is_closed():
        loop.default_exception_handler(context)


def worker_row(app: App) -> int:
    """The worker's number, which one that takes the place of a dead one has too."""
    # "Sanic-Server-1-0"; a test that runs in one process has none.
    return int(app.m.name.split("-")[-2]) if _is_worker(app) else 0


def _is_worker(app: App) -> bool:
    """Whether it serves in a process of its own, or in one with tests."""
    return hasattr(app, "multiplexer")


def _register_errors(app: App) -> None:
    async def refused(request: Request, error: RegistryError) -> HTTPResponse:
        if isinstance(error, UpstreamFault | MirrorFault):
            request.ctx.fault = error.message
        if isinstance(error, RequestNotSent):
            _LOG.error("%s %s: %s", request.method, request.path, error.message, exc_info=error.__cause__)
        return error_response(error, request.ctx.part_set.settings.self_auth_service)

    async def refused_by_sanic(_: Request, error: SanicException) -> HTTPResponse:
        return sanic_error_response(error)

    async def abandoned(request: Request, _: RequestCancelled) -> HTTPResponse:
        """Nobody reads this answer; the status is the one that nginx made customary in logs."""
        request.ctx.fault = access_log.CLIENT_LEFT
        return HTTPResponse(status=499)

    async def unexpected(request: Request, error: Exception) -> HTTPResponse:
        _LOG.error("%s %s", request.method, request.path, exc_info=error)
        return unexpected_error_response()

    app.error_handler.add(RegistryError, refused)
    app.error_handler.add(SanicException, refused_by_sanic)
    app.error_handler.add(RequestCancelled, abandoned)
    app.error_handler.add(Exception, unexpected)
