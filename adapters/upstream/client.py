"""One HTTP exchange with an upstream. Follows redirects, translates errors, and protects credentials."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import aiohttp
from yarl import URL

from adapters.upstream.addresses import AddressPolicy, ConfiguredOrigins, check_redirect, origin_of, parse_url
from adapters.upstream.bodies import BodyReceiver, decode_body
from adapters.upstream.http_sessions import Sessions
from adapters.upstream.request_limits import RequestLimiter
from adapters.upstream.transport_errors import check_header_fields, translate_errors, translate_send_errors
from application.ports.telemetry import current_record
from domain.content import is_web_page
from domain.digest import Bytes
from domain.errors import UpstreamBodyTooLarge, UpstreamBroken, UpstreamFault
from domain.upstreams import Origin

_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOPS = 10
_DRAINED = 16 * 1024
# A signed URL is valid only for GET. Object stores answer a HEAD request for it with one of these statuses.
_HEAD_REFUSED = frozenset({403, 405, 501})
_METHOD_REFUSED = frozenset({405, 501})
_ONE_BYTE = ("Range", "bytes=0-0")
"""Requests a single byte when a GET replaces a HEAD, because the body is not needed."""
_PATIENCE_SECONDS = 3.0
"""If a client leaves after waiting this long, the server counts as silent. Work that several clients wait for is not
cancelled when they leave (application/concurrency.py, application/blobs/); it detects a silent server by its timeout.
"""
_UNANSWERED = "no answer came"

Check = Callable[[], None]


@dataclass(frozen=True)
class HttpRequest:
    """One request.

    `authorization`: sent only to the origin of `url`. `follow`: whether to follow redirects; otherwise the redirect is
    the response. `keeps_query`: a redirect target without a query gets the query of the request. `may_be_empty`: a HEAD
    may report 0 bytes of content. `check`: called before the request is sent; raises if the request is no longer
    useful. `is_probe`: the request does not wait for the request limits.
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

    @property
    def origin(self) -> Origin:
        return origin_of(self.url)

    def with_authorization(self, authorization: str | None) -> Self:
        return replace(self, authorization=authorization)


@dataclass(frozen=True)
class HttpResponse:
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

    async def pieces(self) -> AsyncIterator[Bytes]:
        """The body as it arrives. Raises UpstreamFault if the connection fails or ends too early."""
        with translate_errors(_host(self.raw.url)):
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
        return decode_body(await read_all(self.pieces(), limit), self.header("Content-Encoding"), limit)


class HttpClient:
    """Sends HTTP requests to one upstream and to the targets of its redirects. `agent`: the User-Agent header.
    `configured`: the origins that the operator configured; their IP addresses are not checked.
    """

    def __init__(self, sessions: Sessions, limiter: RequestLimiter, agent: str, configured: ConfiguredOrigins) -> None:
        self._sessions = sessions
        self._limiter = limiter
        self._agent = agent
        self._configured = configured

    def proxy_to(self, url: URL) -> str | None:
        """The proxy for requests to this URL, or None for a direct connection."""
        return self._sessions.proxy_to(url)

    @asynccontextmanager
    async def request(self, request: HttpRequest) -> AsyncIterator[HttpResponse]:
        """The response, open until the context ends. Raises UpstreamFault, MirrorFault.

        The request occupies one connection of the limiter until then. Code with an open response must not wait for
        another request: that could be a deadlock.
        """
        async with nullcontext() if request.is_probe else self._limiter.slot(), self._exchange(request) as response:
            yield response

    @asynccontextmanager
    async def _exchange(self, request: HttpRequest) -> AsyncIterator[HttpResponse]:
        """Follows redirects with the same method. Drops Authorization permanently at the first change of scheme, host
        or port (CVE-2026-48978): storage rejects requests with it, and must not see the credentials.
        """
        url, authorization, method = request.url, request.authorization, request.method
        narrowed: tuple[tuple[str, str], ...] = ()
        for _ in range(_HOPS):
            asked = replace(request, method=method, url=url, headers=(*request.headers, *narrowed))
            if is_own := origin_of(url) == request.origin:
                await self._turn(request)  # the limits are the upstream's, not its storage's
            address_policy = self._configured.address_policy(request.origin, origin_of(url))
            response = await self._send_or_cut(asked.with_authorization(authorization), address_policy)
            if response is None:
                method, narrowed = "GET", (_ONE_BYTE,)
                continue
            try:
                target = _redirect_target(response, asked) if request.follow else None
                if target is None and not _wants_get(asked, response, is_own=is_own):
                    yield HttpResponse(response, is_own, BodyReceiver.take(response))
                    return
                await _drain(response)
            finally:
                response.release()
            if target is None:
                method, narrowed = "GET", (_ONE_BYTE,)
                continue
            check_redirect(request.origin, origin_of(target))
            if origin_of(target) != request.origin:
                authorization = None
            url = target
        raise UpstreamBroken("the upstream redirects too many times")

    async def _send_or_cut(self, request: HttpRequest, address_policy: AddressPolicy) -> aiohttp.ClientResponse | None:
        """None if the server closed or reset the connection instead of answering a HEAD, as some servers do."""
        try:
            return await self._send(request, address_policy)
        except UpstreamFault as fault:
            if request.method == "HEAD" and _was_cut(fault):
                return None
            raise

    async def _turn(self, request: HttpRequest) -> None:
        if not request.is_probe:
            await self._limiter.turn()
        if request.check:
            request.check()

    async def _send(self, request: HttpRequest, address_policy: AddressPolicy) -> aiohttp.ClientResponse:
        method, url = request.method, request.url
        headers = [*request.headers, ("User-Agent", self._agent)]
        if request.authorization is not None:
            headers.append(("Authorization", request.authorization))
        check_header_fields(headers)
        with translate_send_errors(_host(url)):
            session, proxy = self._sessions.session_for(url, address_policy)
        send = partial(
            session.request, method, url, headers=headers, data=request.data, allow_redirects=False, proxy=proxy
        )
        with translate_send_errors(_host(url)), _patient():
            try:
                response = await send()
            except aiohttp.ServerDisconnectedError:
                # The server closed an idle connection just before the request. aiohttp repeats idempotent requests. A
                # refresh grant may be repeated too, because its refresh token does not change.
                if method != "POST":
                    raise
                response = await send()
        current_record().upstream_status = response.status
        return response


@contextmanager
def _patient() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        yield
    except asyncio.CancelledError as left:
        if loop.time() - began >= _PATIENCE_SECONDS:
            left.add_note(_UNANSWERED)
        raise


def was_unanswered(left: asyncio.CancelledError) -> bool:
    """Whether the request was cancelled after the server had been silent for _PATIENCE_SECONDS."""
    return _UNANSWERED in getattr(left, "__notes__", ())


async def read_all(pieces: AsyncIterator[Bytes], limit: int) -> bytes:
    """A whole body. Raises UpstreamBodyTooLarge if it is longer than `limit` bytes."""
    content = bytearray()
    async for piece in pieces:
        content += piece
        if len(content) > limit:
            raise UpstreamBodyTooLarge(
                f"the upstream sent more than {limit} bytes, which is the limit for this kind of answer"
            )
    return bytes(content)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the short body of a response that is not needed, so that its connection can be reused."""
    if response.content_length is not None and response.content_length <= _DRAINED:
        with translate_errors(_host(response.url)):
            await response.content.readany()


def _redirect_target(response: aiohttp.ClientResponse, asked: HttpRequest) -> URL | None:
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or location is None:
        return None
    target, query = parse_url(location), asked.url.raw_query_string
    try:
        target = target if target.scheme else parse_url(str(asked.url.join(target)))
    except ValueError as error:
        raise UpstreamBroken("the upstream redirects to an address that is not valid") from error
    if asked.keeps_query and query and not target.raw_query_string:
        # registry.k8s.io drops the page parameters in redirects; without them, it returns the first page for ever.
        return parse_url(f"{str(target).partition('#')[0].rstrip('?')}?{query}")
    return target


def _wants_get(asked: HttpRequest, response: aiohttp.ClientResponse, *, is_own: bool) -> bool:
    """Whether a HEAD must be repeated as a GET: the server does not support HEAD, or reports a length of 0, or answers
    with the headers of a web page.
    """
    if asked.method != "HEAD":
        return False
    if response.status == _OK:
        is_empty = response.content_length == 0 and not asked.may_be_empty
        return is_empty or is_web_page(response.headers.get("Content-Type"))
    return response.status in (_METHOD_REFUSED if is_own else _HEAD_REFUSED)


def _was_cut(fault: UpstreamFault) -> bool:
    """Whether the server accepted the connection and then closed or reset it without a response."""
    cause = fault.__cause__
    is_cut = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
    return is_cut and not isinstance(cause, aiohttp.ClientConnectorError)


def _host(url: URL) -> str:
    return url.host or "the upstream"
