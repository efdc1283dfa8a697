"""The HTTP client of each upstream. Follows redirects, translates errors, and protects credentials."""

import asyncio
import fcntl
import termios
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import aiohttp
from yarl import URL

from adapters.upstream.addresses import ConfiguredOrigins, check_redirect, origin_of, parse_url
from adapters.upstream.bodies import BodyReceiver, decode_body
from adapters.upstream.connections import ProxyRules, Sessions, SessionSettings
from adapters.upstream.request_limits import RequestLimiter, RequestLimits
from adapters.upstream.transport_errors import check_header_fields, translate_errors
from application.ports.telemetry import EventSink, current_record
from application.ports.tracing import Attributes, SpanKind, TraceSpan, traced
from domain.digest import Bytes
from domain.errors import UpstreamBodyTooLarge, UpstreamBroken, UpstreamFault
from domain.events import QueueLeft, UpstreamAnswered
from domain.manifests import is_web_page
from domain.upstreams import Origin, Upstream
from domain.value import Value

_OK = 200
_CLIENT_ERRORS, _SERVER_ERRORS = 400, 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOPS = 10
_DRAINED = 16 * 1024
# A signed URL is valid only for GET. Object stores answer a HEAD request for it with one of these statuses.
_HEAD_REFUSED = frozenset({403, 405, 501})
_METHOD_REFUSED = frozenset({405, 501})
_NO_CODING = ("Accept-Encoding", "identity")
"""A digest covers the stored bytes, not their content coding, so the mirror requests no coding."""
_PATIENCE_SECONDS = 3.0
"""If a client leaves after waiting this long, the server counts as silent. Work that several clients wait for is not
cancelled when they leave (application/concurrency.py, application/blobs/); it detects a silent server by its timeout.
"""
_UNANSWERED = "no answer came"

Check = Callable[[], None]


@dataclass(frozen=True)
class HttpRequest:
    """One request.

    `kind`: one of UPSTREAM_KINDS, for the metrics.
    `authorization`: sent only to the origin of `url`. `follow`: whether to follow redirects; otherwise the redirect is
    the response. `keeps_query`: a redirect target without a query gets the query of the request. `may_be_empty`: a HEAD
    may report 0 bytes of content. `check`: called before the request is sent; raises if the request is no longer
    useful. `is_probe`: the request does not wait for the request limits. `is_extra`: the request is sent only if the
    limits allow it at once. `redirected_by`: the origin that redirected to `url` in an earlier response; None if `url`
    is not a redirect target.
    """

    method: str
    url: URL
    headers: Sequence[tuple[str, str]] = ()
    authorization: str | None = field(default=None, repr=False)
    data: str | None = field(default=None, repr=False)
    follow: bool = True
    keeps_query: bool = False
    may_be_empty: bool = False
    check: Check | None = field(default=None, compare=False, repr=False)
    is_probe: bool = False
    is_extra: bool = False
    redirected_by: Origin | None = None
    kind: str = "ping"

    @property
    def origin(self) -> Origin:
        return origin_of(self.url)

    def at_target(self, url: str) -> Self:
        """The same request to a redirect target that answered it earlier. It has no credentials and follows no further
        redirect. Raises UpstreamBroken if the mirror does not follow redirects to this URL.
        """
        target = parse_url(url)
        check_redirect(self.origin, origin_of(target))
        return replace(self, url=target, authorization=None, follow=False, redirected_by=self.origin)

    def with_authorization(self, authorization: str | None) -> Self:
        return replace(self, authorization=authorization)


class HttpResponse(Value, frozen=True):
    """The final response. `is_own`: it comes from the requested origin, not from the target of a redirect."""

    raw: aiohttp.ClientResponse
    is_own: bool
    receiver: BodyReceiver | None = None
    """Set if the body is large."""

    @property
    def status(self) -> int:
        return self.raw.status

    def header(self, name: str) -> str | None:
        return self.raw.headers.get(name)

    def lines(self, name: str) -> tuple[str, ...]:
        return tuple(self.raw.headers.getall(name, ()))

    def unread(self) -> int:
        """The bytes that wait in the kernel to be read; 0 when the connection is not used for this body any more."""
        transport = self.raw.connection.transport if self.raw.connection else None
        connection = transport.get_extra_info("socket") if transport else None
        if connection is None or connection.fileno() < 0:
            return 0
        count = array("i", [0])
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, count)
        return count[0]

    async def pieces(self) -> AsyncIterator[Bytes]:
        """The body as it arrives. Raises UpstreamFault if the connection fails or ends too early."""
        with translate_errors(self.raw.url):
            if self.receiver:
                async with aclosing(self.receiver.pieces()) as parts:
                    async for part in parts:
                        yield part
                return
            content = self.raw.content
            try:
                async for piece in content.iter_any():
                    yield piece
            except (aiohttp.ClientError, OSError):
                # aiohttp raises the error before it returns the bytes that arrived earlier. Return them first: without
                # them, a download that fails again and again might never make progress.
                if arrived := content._read_nowait(-1):  # noqa: SLF001 - there is no public method
                    yield arrived
                raise

    async def read(self, limit: int) -> bytes:
        """The whole decoded body. Raises UpstreamBroken if it is longer than `limit` bytes or cannot be decoded."""
        content = bytearray()
        async for piece in self.pieces():
            content += piece
            if len(content) > limit:
                raise UpstreamBodyTooLarge(
                    f"the upstream sent more than {limit} bytes, which is the limit for this kind of answer"
                )
        return decode_body(bytes(content), self.header("Content-Encoding"), limit)


class HttpClient:
    """Sends HTTP requests to one upstream and to the targets of its redirects. `agent`: the User-Agent header.
    `configured`: the origins that the operator configured; their IP addresses are not checked. `name`: the URL of the
    upstream, for the metrics.
    """

    def __init__(
        self,
        sessions: Sessions,
        limiter: RequestLimiter,
        agent: str,
        configured: ConfiguredOrigins,
        events: EventSink,
        name: str,
    ) -> None:
        self._sessions = sessions
        self._limiter = limiter
        self._agent = agent
        self._configured = configured
        self._events = events
        self.name = name
        limiter.waited = lambda seconds: events.emit(QueueLeft(name, seconds))

    @property
    def running(self) -> int:
        """The requests whose response has not ended, without probes."""
        return self._limiter.running

    def proxy_to(self, url: URL) -> str | None:
        """The proxy for requests to this URL, or None for a direct connection."""
        return self._sessions.rules.proxy_for(url)

    @asynccontextmanager
    async def request(self, request: HttpRequest) -> AsyncIterator[HttpResponse]:
        """The response, open until the context ends. Raises UpstreamFault, MirrorFault; MirrorBusy at once for an extra
        request that the limits do not allow now.

        The request occupies one connection of the limiter until then. Code with an open response must not wait for
        another request: that could be a deadlock.
        """
        current, upstream = request, request.redirected_by or request.origin
        async with nullcontext() if request.is_probe else self._limiter.slot(is_extra=request.is_extra):
            for _ in range(_HOPS):
                try:
                    response = await self._send(current, upstream)
                except UpstreamFault as fault:
                    if current.method != "HEAD" or not _was_cut(fault):
                        raise
                    current = _as_get(current)
                    continue
                try:
                    following = _following_request(current, response, upstream)
                    if following is None:
                        yield HttpResponse(response, current.origin == upstream, BodyReceiver.take(response))
                        return
                    await _drain(response)
                finally:
                    response.release()
                current = following
        raise UpstreamBroken("the upstream redirects too many times")

    async def _send(self, request: HttpRequest, upstream: Origin) -> aiohttp.ClientResponse:
        """The response without its body. Waits until the limits allow the request."""
        method, url, target = request.method, request.url, request.origin
        if target == upstream:  # the limits are the upstream's, not its storage's
            if not request.is_probe:
                await self._limiter.turn(is_extra=request.is_extra)
            if request.check:
                request.check()
        kind = "storage" if target != upstream else request.kind
        with self._traced(method, url, kind) as span:
            headers = self._headers(request, span if target == upstream else None)
            with translate_errors(url, is_sending=True), _note_silence():
                session, proxy = self._sessions.session_for(url, self._configured.address_policy(upstream, target))
                send = partial(
                    session.request, method, url, headers=headers, data=request.data, allow_redirects=False, proxy=proxy
                )
                with self._timed(kind) as answered:
                    try:
                        response = await send()
                    except aiohttp.ServerDisconnectedError:
                        # The server closed an idle connection just before the request. aiohttp repeats idempotent
                        # requests. A refresh grant may be repeated too, because its refresh token does not change.
                        if method != "POST":
                            raise
                        response = await send()
                    answered(response.status)
            span.set({"http.response.status_code": response.status})
            if _result_of(response.status) not in {"ok", "challenged"}:  # a challenge is part of every login
                span.fail(str(response.status))
        current_record().upstream_status = response.status
        return response

    def _headers(self, request: HttpRequest, span: TraceSpan | None) -> list[tuple[str, str]]:
        """The header fields. `span`: that of the request, which the upstream gets and its storage does not."""
        headers = [_NO_CODING, *request.headers, ("User-Agent", self._agent)]
        if request.authorization is not None:
            headers.append(("Authorization", request.authorization))
        if span is not None:
            headers += span.headers
            if request_id := current_record().request_id:
                headers.append(("X-Request-ID", request_id))
        check_header_fields(headers)
        return headers

    def _traced(self, method: str, url: URL, kind: str) -> AbstractContextManager[TraceSpan]:
        """The span of an exchange until the head of its response. It has no query, which may be a signature or a name
        to search for, and of a storage no path, which may be signed too.
        """
        shown = url.origin() if kind == "storage" else url.with_query(None).with_user(None)
        attributes: Attributes = {
            "http.request.method": method,
            "url.full": str(shown),
            "server.address": url.host or "",
            "server.port": url.port or 0,
            "mirror.upstream": self.name,
            "mirror.kind": kind,
        }
        return traced(f"{method} upstream {kind}", SpanKind.CLIENT, attributes)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[Callable[[int], None]]:
        """Emit UpstreamAnswered at the end. The context gets a function that it calls with the status of the response.
        An exchange that is cancelled is not counted, because the upstream may not be the reason.
        """
        loop = asyncio.get_running_loop()
        began, result = loop.time(), "failed"

        def answered(status: int) -> None:
            nonlocal result
            result = _result_of(status)

        try:
            yield answered
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._events.emit(UpstreamAnswered(self.name, kind, result, loop.time() - began))
            raise
        self._events.emit(UpstreamAnswered(self.name, kind, result, loop.time() - began))


UpstreamClients = Mapping[Upstream, HttpClient]
"""The client of each upstream. An upstream is found by any of its URLs."""


@asynccontextmanager
async def open_clients(
    connections: Mapping[Upstream, tuple[SessionSettings, RequestLimits]],
    proxies: ProxyRules,
    agent: str,
    events: EventSink,
) -> AsyncIterator[UpstreamClients]:
    """A client for each of these upstreams, open until the context ends. Needs a running event loop.

    Upstreams with equal session settings share a session and its connections. Each upstream has its own limits.
    `agent`: the User-Agent header.
    """
    sessions: dict[SessionSettings, Sessions] = {}
    clients: dict[Upstream, HttpClient] = {}
    async with AsyncExitStack() as stack:
        for upstream, (settings, limits) in connections.items():
            if settings not in sessions:
                sessions[settings] = Sessions(settings, proxies)
                stack.push_async_callback(sessions[settings].close)
            # Upstreams that have this one as a fallback use its client too.
            configured = ConfiguredOrigins.of(*(one for one in connections if upstream in one.endpoints))
            clients[upstream] = HttpClient(
                sessions[settings], RequestLimiter(limits), agent, configured, events, upstream.url
            )
        of_endpoints = {endpoint: client for upstream, client in clients.items() for endpoint in upstream.endpoints}
        yield of_endpoints | clients  # an upstream that is also a fallback of another upstream has its own client


class RequestsInProgress:
    """Implements UpstreamRequests."""

    def __init__(self, clients: UpstreamClients) -> None:
        self._clients = clients

    def running(self) -> Mapping[str, int]:
        return {client.name: client.running for client in self._clients.values()}


def _result_of(status: int) -> str:
    """One of UPSTREAM_RESULTS."""
    match status:
        case 401:
            return "challenged"
        case 429:
            return "throttled"
        case _ if status >= _SERVER_ERRORS:
            return "failed"
        case _ if status >= _CLIENT_ERRORS:
            return "refused"
    return "ok"


@contextmanager
def _note_silence() -> Iterator[None]:
    """Add a note to a cancellation after _PATIENCE_SECONDS without a response (see `was_unanswered`)."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if loop.time() - began >= _PATIENCE_SECONDS:
            cancelled.add_note(_UNANSWERED)
        raise


def was_unanswered(cancelled: asyncio.CancelledError) -> bool:
    """Whether the request was cancelled after the server had been silent for _PATIENCE_SECONDS."""
    return _UNANSWERED in getattr(cancelled, "__notes__", ())


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the short body of a response that is not needed, so that its connection can be reused."""
    if response.content_length is not None and response.content_length <= _DRAINED:
        with translate_errors(response.url):
            await response.content.readany()


def _following_request(request: HttpRequest, response: aiohttp.ClientResponse, upstream: Origin) -> HttpRequest | None:
    """The request to the target of a redirect, or a GET that replaces a HEAD; None if the response is final.

    The method stays the same after a redirect. At the first change of scheme, host or port, Authorization is dropped
    permanently (CVE-2026-48978): storage rejects requests with it, and must not see the credentials.
    """
    target = _redirect_target(response, request) if request.follow else None
    if target is None:
        return _as_get(request) if _wants_get(request, response, is_own=request.origin == upstream) else None
    check_redirect(upstream, origin_of(target))
    return replace(request, url=target, authorization=request.authorization if origin_of(target) == upstream else None)


def _as_get(request: HttpRequest) -> HttpRequest:
    """A GET in place of a HEAD. It requests a single byte, because the body is not needed."""
    return replace(request, method="GET", headers=(*request.headers, ("Range", "bytes=0-0")))


def _redirect_target(response: aiohttp.ClientResponse, request: HttpRequest) -> URL | None:
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or location is None:
        return None
    target, query = parse_url(location), request.url.raw_query_string
    try:
        target = target if target.scheme else parse_url(str(request.url.join(target)))
    except ValueError as error:
        raise UpstreamBroken("the upstream redirects to an address that is not valid") from error
    if request.keeps_query and query and not target.raw_query_string:
        # registry.k8s.io drops the page parameters in redirects; without them, it returns the first page for ever.
        return parse_url(f"{str(target).partition('#')[0].rstrip('?')}?{query}")
    return target


def _wants_get(request: HttpRequest, response: aiohttp.ClientResponse, *, is_own: bool) -> bool:
    """Whether a HEAD must be repeated as a GET: the server does not support HEAD, or reports a length of 0, or answers
    with the headers of a web page.
    """
    if request.method != "HEAD":
        return False
    if response.status == _OK:
        is_empty = response.content_length == 0 and not request.may_be_empty
        return is_empty or is_web_page(response.headers.get("Content-Type"))
    return response.status in (_METHOD_REFUSED if is_own else _HEAD_REFUSED)


def _was_cut(fault: UpstreamFault) -> bool:
    """Whether the server accepted the connection and then closed or reset it without a response, as some servers do
    instead of answering a HEAD.
    """
    cause = fault.__cause__
    is_cut = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
    return is_cut and not isinstance(cause, aiohttp.ClientConnectorError)
