"""The Sanic application: routes, limits, error handlers, and the runtimes of the worker."""

import asyncio
from functools import partial
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import BadURL, RequestCancelled
from sanic.http.http1 import Http
from sanic.response import BaseHTTPResponse

from entrypoints.http import access_log
from entrypoints.http.delivery.body_delivery import close_if_stopping
from entrypoints.http.delivery.kernel_copy import CopyThreads
from entrypoints.http.page.routes import pages
from entrypoints.http.requests.request_ids import HEADER, TRACING, RequestIds, without_tracing
from entrypoints.http.responses.error_responses import answer_error
from entrypoints.http.responses.response_cache import CachingSanic
from entrypoints.http.routes.operation_routes import operations
from entrypoints.http.routes.pull_routes import pulls
from entrypoints.http.routes.search_routes import searches
from entrypoints.http.routes.token_routes import tokens
from entrypoints.http.runtime import ContainerFactory, Runtimes
from entrypoints.settings import Settings
from entrypoints.wiring.container import open_container

# Tokens of large clouds exceed Sanic's default of 8 KiB, and its ceiling of 16 KiB.
_HEADER_LIMIT = 32 * 1024
_REQUEST_LINE_LIMIT = 8 * 1024
_BODY_LIMIT = 64 * 1024
_SILENCE_SECONDS = 120
_CANCEL_SECONDS = 1.0

App = Sanic[Any, Any]


class AnyTargetRequest(Request[Any, Any]):
    """A request that accepts any target. Sanic's own class raises for a target that it cannot parse, again while it
    builds the error response, and then logs the whole target with its query.
    """

    def __init__(self, url_bytes: bytes, *args: Any, **others: Any) -> None:
        try:
            super().__init__(url_bytes, *args, **others)
        except BadURL:
            super().__init__(b"*", *args, **others)
        if not self._parsed_url.path:
            # RFC 9112 section 3.2.2: a target in absolute form without a path has the path "/".
            super().__init__(b"/", *args, **others)
        self.request_id: str = self.app.ctx.request_ids.id_of(self.headers.getall(HEADER, ()))
        self.key: bytes = self.head if TRACING.isdisjoint(self.headers) else without_tracing(self.head)
        """Identifies the request in the response cache. If ids and traces were part of it, clients that send them would
        find no response.
        """


def create_app(
    settings: Settings, name: str = "docker_image_proxy", container_factory: ContainerFactory = open_container
) -> App:
    """Create the application. Tests pass another `container_factory`."""
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
    app.blueprint([pulls, tokens, searches, operations, pages])
    app.ctx.settings = settings
    app.ctx.is_stopping = False
    app.ctx.certificates = None
    app.ctx.reloads = None
    app.ctx.request_ids = RequestIds()
    app.before_server_start(partial(_start, container_factory=container_factory))
    app.after_server_stop(_stop)
    app.error_handler.add(Exception, answer_error)
    app.error_handler.add(RequestCancelled, answer_error)  # it is a BaseException
    app.register_middleware(access_log.begin, "request")
    app.register_middleware(_finish, "response")
    app.register_middleware(access_log.end, "response")
    return app


def timeouts(settings: Settings) -> dict[str, float]:
    """Sanic's timeouts, in seconds."""
    return {
        "GRACEFUL_SHUTDOWN_TIMEOUT": settings.shutdown_grace,
        "REQUEST_TIMEOUT": settings.request_timeout,
        # Measures silence only: a slow client keeps its download as long as it reads. Longer than an upstream may take.
        "RESPONSE_TIMEOUT": max(settings.delivery_idle, 3 * settings.longest_silence),
    }


def _finish(request: Request, response: BaseHTTPResponse) -> None:
    """Complete the headers of every response, 401 included: old docker clients ignore a challenge without the API
    version.
    """
    close_if_stopping(request)
    response.headers.setdefault("Docker-Distribution-Api-Version", "registry/2.0")
    if hasattr(request.ctx, "record"):
        response.headers["X-Request-ID"] = request.ctx.record.request_id
    if namespace := getattr(request.ctx, "namespace", None):
        # OCI distribution specification, "Registry Proxying".
        response.headers.setdefault("OCI-Namespace", namespace)
    if isinstance(response, HTTPResponse) and hasattr(request.ctx, "record") and request.ctx.good_until:
        request.ctx.runtime.response_cache.keep(request, response, request.ctx.good_until)


async def _start(app: App, *, container_factory: ContainerFactory) -> None:
    app.ctx.request_ids = RequestIds()  # after the fork, so that each worker has another random beginning
    app.ctx.runtimes = Runtimes(partial(container_factory, worker=worker_number(app)))
    await app.ctx.runtimes.begin(app.ctx.settings)
    app.ctx.copy_threads = CopyThreads()


async def _stop(app: App) -> None:
    app.ctx.copy_threads.close()
    await app.ctx.runtimes.close()
    if _is_worker(app):
        await _cancel_remaining_tasks()


async def _cancel_remaining_tasks() -> None:
    """The last step of a worker's loop. Requests that were cut off may have started another upstream request. A DNS
    lookup cannot be cancelled: uvloop would report its result as an error of the closed loop.
    """
    loop = asyncio.get_running_loop()
    remaining = asyncio.all_tasks() - {asyncio.current_task()}
    for task in remaining:
        task.cancel()
    if remaining:
        done, _ = await asyncio.wait(remaining, timeout=_CANCEL_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it
    loop.set_exception_handler(_ignore_when_closed)


def _ignore_when_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not loop.is_closed():
        loop.default_exception_handler(context)


def worker_number(app: App) -> int:
    """The number of the worker. A worker that replaces a dead one has the same number."""
    # The name is "Sanic-Server-1-0". In a test that runs in one process there is none.
    return int(app.m.name.split("-")[-2]) if _is_worker(app) else 0


def _is_worker(app: App) -> bool:
    """Whether the application runs in a worker process of Sanic; in tests it does not."""
    return hasattr(app, "multiplexer")
