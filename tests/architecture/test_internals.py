"""Internals of Sanic, aiohttp and aiohttp-socks that the mirror depends on. The tests fail if one of them changes.

An entry is a class of the library, its names that the mirror uses, and the module that uses them. The names are
private, inherited by a subclass in this project, or public but not documented. `pyproject.toml` caps the three
libraries at the next version after the locked one. To raise a cap: run `scripts/lock --upgrade`, then this file, then
`tests/e2e`, whose tests check that the names still have the same meaning.
"""

import ast
import asyncio
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader
from aiohttp_socks import ProxyConnector
from sanic import Request, Sanic
from sanic.headers import format_http1_response
from sanic.http.http1 import Http
from sanic.http.tls.context import create_context
from sanic.response import BaseHTTPResponse
from sanic.server.protocols.base_protocol import SanicProtocol
from sanic.server.protocols.http_protocol import HttpProtocol, HttpProtocolMixin
from sanic.worker.manager import WorkerManager
from sanic.worker.multiplexer import WorkerMultiplexer
from sanic.worker.process import WorkerProcess
from sanic.worker.serve import worker_serve

from tests.architecture.sources import PACKAGES, ROOT, files, name_of, parsed

FRAMING = "entrypoints/http/connection/request_parser.py"
PROTOCOL = "entrypoints/http/connection/connection_protocol.py"
DELIVERY = "entrypoints/http/delivery/body_delivery.py"
RESPONSE_CACHE = "entrypoints/http/responses/response_cache.py"
APP = "entrypoints/http/app.py"
RUN = "entrypoints/server/serve.py"
WORKERS = "entrypoints/server/workers.py"
RESPONSES = "adapters/upstream/response_protocol.py"
SOCKS = "adapters/upstream/socks_connector.py"
BODIES = "adapters/upstream/bodies.py"
CLIENT = "adapters/upstream/client.py"


class Internal(NamedTuple):
    owner: type
    names: str
    used_in: str
    why: str


INTERNALS = (
    # --- Sanic: reading requests and sending responses ---
    Internal(
        Http,
        "HEADER_MAX_SIZE _receive_more _send expecting_continue head_only http1_response_header init_for_request "
        "keep_alive protocol recv_buffer request request_body request_bytes request_bytes_left request_max_size stage "
        "url http1_request_header read",
        FRAMING,
        "StrictHttp replaces the reader of requests, which accepts ambiguous framing.",
    ),
    Internal(Request, "_current", FRAMING, "Sanic's reader sets the current request; so does ours."),
    Internal(
        HttpProtocol,
        "_callback_check_timeouts _http _task check_timeouts close conn_info connection_lost connection_made "
        "data_received loop recv_buffer response_timeout transport HTTP_CLASS",
        PROTOCOL,
        "MirrorProtocol reports the state of its connection, ends requests that are late, and closes without a loss.",
    ),
    Internal(SanicProtocol, "send", PROTOCOL, "Its subclass sends the same with a signal, which takes longer."),
    Internal(Http, "exception stage", PROTOCOL, "Sanic sends this exception when the request is cancelled."),
    Internal(
        HttpProtocol,
        "_time _can_write response_timeout",
        DELIVERY,
        "RESPONSE_TIMEOUT does not see the bytes that the kernel copies; and Sanic's bytes have to leave first.",
    ),
    Internal(Http, "response_bytes_left stage", DELIVERY, "Sanic ends a response when no bytes are left."),
    Internal(
        Http, "_send stage perft0 keep_alive", RESPONSE_CACHE, "A cached response is written as Sanic writes one."
    ),
    Internal(Sanic, "handle_request ctx", RESPONSE_CACHE, "Cached responses skip the router and the middleware."),
    Internal(Request, "head headers app", APP, "The request head without its trace is the key of a cached response."),
    Internal(
        BaseHTTPResponse, "processed_headers", RESPONSE_CACHE, "The header fields as Sanic sends them, for the cache."
    ),
    Internal(Request, "_parsed_url", APP, "AnyTargetRequest accepts targets that Sanic cannot parse."),
    Internal(Http, "HEADER_CEILING", APP, "Sanic's ceiling for REQUEST_MAX_HEADER_SIZE is below the size of tokens."),
    # --- Sanic: worker processes ---
    Internal(Sanic, "multiplexer m", APP, "The attribute exists in worker processes only."),
    Internal(WorkerMultiplexer, "name", APP, "The number of the worker is a part of its name."),
    Internal(Sanic, "start_method", RUN, "Workers are forked."),
    Internal(
        WorkerManager,
        "wait_for_ack run processes",
        WORKERS,
        "Sanic has no event for the moment in which the workers have started.",
    ),
    Internal(
        WorkerManager, "monitor_subscriber", WORKERS, "Sanic's loop would ask for the states of workers all the time."
    ),
    Internal(WorkerProcess, "pid is_alive", WORKERS, "Dead workers are replaced."),
    Internal(WorkerMultiplexer, "ack", WORKERS, "A worker reports its start through it; Sanic logs a failure."),
    # --- aiohttp ---
    Internal(
        ResponseHandler,
        "_parser _payload _skip_payload data_received feed_data force_close is_connected set_response_params transport",
        RESPONSES,
        "SingleResponseHandler closes a connection on which bytes arrive that belong to no response.",
    ),
    Internal(
        ResponseHandler,
        "pause_reading close abort",
        RESPONSES,
        "SingleResponseHandler receives no more of a large body than its reader needs.",
    ),
    Internal(aiohttp.TCPConnector, "_factory", RESPONSES, "aiohttp has no way to choose the protocol."),
    Internal(ResponseHandler, "connection_made", SOCKS, "As above, for SOCKS proxies."),
    Internal(ProxyConnector, "_connect_via_proxy _factory", SOCKS, "As above, for SOCKS proxies."),
    Internal(
        ResponseHandler,
        "transport read_timeout pause_reading connection_lost",
        BODIES,
        "BodyReceiver takes over the connection for the rest of a large body.",
    ),
    Internal(StreamReader, "read_nowait total_bytes feed_eof", BODIES, "The bytes that aiohttp has received already."),
    Internal(StreamReader, "_read_nowait", CLIENT, "The bytes that arrived before a body broke off."),
)

SIGNATURES: dict[Callable[..., object], tuple[str, ...]] = {
    # Methods that subclasses of the mirror override, or that the mirror calls with these parameters.
    Http.http1_request_header: ("self",),
    Http.http1_response_header: ("self", "data", "end_stream"),
    Http.read: ("self",),
    Http.init_for_request: ("self",),
    HttpProtocol.connection_made: ("self", "transport"),
    HttpProtocol.connection_lost: ("self", "exc"),
    HttpProtocol.data_received: ("self", "data"),
    HttpProtocol.check_timeouts: ("self",),
    Request.__init__: ("self", "url_bytes", "headers", "version", "method", "transport", "app", "head", "stream_id"),
    Sanic.handle_request: ("self", "request"),
    WorkerManager.wait_for_ack: ("self",),
    WorkerManager.run: ("self",),
    format_http1_response: ("status", "headers"),
    create_context: ("certfile", "keyfile", "password", "purpose"),
    ResponseHandler.__init__: ("self", "loop"),
    ResponseHandler.feed_data: ("self", "data"),
    ResponseHandler.data_received: ("self", "data"),
    ResponseHandler.is_connected: ("self",),
    ResponseHandler.close: ("self",),
}

TEXTS = {
    # The class or function of the library that handles the text or the key.
    "__TERMINATE__": WorkerManager,
    "monitor_publisher": WorkerManager,
    "self.monitor_subscriber.poll(0.1)": WorkerManager._poll_monitor,
    "asyncio_server_kwargs": worker_serve,
    "connections": worker_serve,
    "requests_count": HttpProtocol,
    "self.http1_request_header(": Http,
    "self.HTTP_CLASS(": HttpProtocolMixin,
}

OURS = {
    "StrictHttp": Http,
    "MirrorProtocol": HttpProtocol,
    "CachingSanic": Sanic,
    "AnyTargetRequest": Request,
    "SingleResponseHandler": ResponseHandler,
    "SingleResponseSocksConnector": ProxyConnector,
}
"""Classes of the mirror that inherit from a class of a library."""


def _listed(path: str) -> set[str]:
    return {name for entry in INTERNALS if entry.used_in == path for name in entry.names.split()}


async def _instance(owner: type) -> object:
    """Some attributes exist on instances only."""
    loop = asyncio.get_running_loop()
    if owner is ResponseHandler:
        return ResponseHandler(loop)
    if owner is aiohttp.TCPConnector:
        return aiohttp.TCPConnector()
    if owner is ProxyConnector:
        return ProxyConnector(host="127.0.0.1", port=1)
    if owner is StreamReader:
        return StreamReader(ResponseHandler(loop), 1, loop=loop)
    return owner


def _names_of(thing: object) -> set[str]:
    kind = thing if isinstance(thing, type) else type(thing)
    annotated = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    assigned = set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(kind)))
    return {*dir(thing), *annotated, *assigned}


@pytest.mark.parametrize("entry", INTERNALS, ids=lambda entry: f"{entry.owner.__name__}-{entry.used_in}")
def test_every_internal_exists(entry: Internal) -> None:
    async def missing() -> set[str]:
        thing = await _instance(entry.owner)
        found = set(entry.names.split()) - _names_of(thing)
        if isinstance(thing, aiohttp.BaseConnector):
            await thing.close()
        return found

    assert asyncio.run(missing()) == set()


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_a_method_that_is_overridden_or_called_takes_these_parameters(function: Callable[..., object]) -> None:
    found = tuple(inspect.signature(function).parameters)
    assert found[: len(SIGNATURES[function])] == SIGNATURES[function]


@pytest.mark.parametrize("text", TEXTS)
def test_the_library_handles_the_text(text: str) -> None:
    assert text in inspect.getsource(TEXTS[text])


def test_aiohttp_creates_its_protocols_with_the_factory() -> None:
    async def factory() -> object:
        async with aiohttp.TCPConnector() as connector:
            return connector._factory

    made = asyncio.run(factory())
    assert isinstance(made, partial)
    assert made.func is ResponseHandler
    assert "self._factory" in inspect.getsource(aiohttp.TCPConnector)


# --- the list is complete ---

TYPES_ONLY = {"entrypoints/cli.py: _SubParsersAction"}
"""A name of argparse, used in an annotation."""


def _foreign_private_names(tree: ast.AST) -> Iterator[str]:
    """Private attributes of an object other than `self`. Those of named tuples are public."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr) and not hasattr(Internal, node.attr):
            owner = ast.unparse(node.value)
            if owner not in {"self", "cls", "os"}:
                yield node.attr


def _inherited_names(kind: ast.ClassDef) -> Iterator[str]:
    """Attributes of `self` that the class neither defines nor sets first in `__init__`, and all of `super()`."""
    defined = {node.name for node in kind.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    makers = [node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    for node in (node for maker in makers for node in ast.walk(maker)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            defined.add(node.attr)
    for node in ast.walk(kind):
        if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            if owner == "super()" or (owner == "self" and node.attr not in defined):
                yield node.attr


def test_every_private_name_of_a_library_is_listed() -> None:
    found = {
        f"{name_of(path)}: {name}"
        for path in files(*PACKAGES)
        for name in _foreign_private_names(parsed(path))
        if name not in _listed(name_of(path))
    }
    assert found - TYPES_ONLY == set()


def test_every_name_that_a_subclass_inherits_is_listed() -> None:
    found = {
        f"{kind.name}: {name}"
        for path in files(*PACKAGES)
        for kind in ast.walk(parsed(path))
        if isinstance(kind, ast.ClassDef) and kind.name in OURS
        for name in set(_inherited_names(kind)) - _listed(name_of(path))
    }
    assert found == set()


def test_no_other_class_inherits_from_a_library() -> None:
    """A new subclass must be added to OURS."""
    found = {
        kind.name
        for path in files(*PACKAGES)
        for kind in ast.walk(parsed(path))
        if isinstance(kind, ast.ClassDef)
        and {ast.unparse(base).split("[")[0] for base in kind.bases} & _imported_from_libraries(parsed(path))
    }
    assert found == set(OURS)


def _imported_from_libraries(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in {"sanic", "aiohttp", "aiohttp_socks"}
        for alias in node.names
    }


def test_every_entry_is_used() -> None:
    for entry in INTERNALS:
        text = (ROOT / entry.used_in).read_text(encoding="utf-8")
        assert [name for name in entry.names.split() if not re.search(rf"\b{name}\b", text)] == [], entry.used_in


# --- the caps ---


@pytest.mark.parametrize("package", ["aiohttp", "aiohttp-socks", "sanic"])
def test_the_library_is_capped_at_the_version_after_the_locked_one(package: str) -> None:
    requirements: list[Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (requirement,) = [one for one in requirements if re.match(rf"{package}[<>=]", one)]
    cap = re.search(r"<([\d.]+)", requirement)
    assert cap, f"{requirement} has no upper bound"
    locked = re.search(rf"^{package}==(\d+)\.(\d+)", (ROOT / "requirements/runtime.lock").read_text(), re.MULTILINE)
    assert locked
    major, minor = map(int, locked.groups())
    assert cap[1] in {f"{major}.{minor + 1}", f"{major + 1}"}
    assert version(package).split(".")[:2] == [str(major), str(minor)]
