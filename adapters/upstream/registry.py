"""Upstream registries over HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import urlencode

from yarl import URL

from adapters.upstream.bodies import has_content_coding, unexpected_coding
from adapters.upstream.client import Check, HttpRequest, HttpResponse, UpstreamClients
from adapters.upstream.failover import Failover
from adapters.upstream.status_errors import check_ok, refusal_of
from adapters.upstream.upstream_logins import LoginKey, UpstreamLogins
from application.ports.upstream import (
    ForwardedCredentials,
    PingResponse,
    RedirectTarget,
    Resource,
    ResourceKind,
    ResponseMetadata,
    UpstreamCredentials,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.access import Scope
from domain.allowance import read_rate_limit
from domain.byte_ranges import Span
from domain.challenge import Challenge
from domain.challenge_rewriter import general_scope
from domain.digest import Digest
from domain.errors import (
    Denied,
    DigestInvalid,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamFault,
)
from domain.http_fields import parse_http_date, read_warnings
from domain.manifests import is_web_page, without_parameters
from domain.trust import UpstreamAuth
from domain.upstreams import Upstream

_OK = 200
_PARTIAL = 206
_UNAUTHORIZED = 401
_CLOCK_SKEW_SECONDS = 1.5
"""The usual difference of clocks that are set by NTP. Clients wait longer than this."""
_LISTINGS = frozenset({ResourceKind.TAGS, ResourceKind.CATALOG, ResourceKind.REFERRERS})
_REDIRECTS = range(300, 400)
_STRONG_ETAG = re.compile(r'"[^\x00-\x20"\x7f]*"')  # RFC 9110 section 8.8.3
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class HttpUpstreamRegistry:
    """Implements UpstreamRegistry."""

    def __init__(
        self,
        clients: UpstreamClients,
        logins: UpstreamLogins,
        failover: Failover,
    ) -> None:
        self._clients = clients
        self._logins = logins
        self._failover = failover

    async def ping(
        self, upstream: Upstream, credentials: UpstreamCredentials, *, is_probe: bool = False
    ) -> PingResponse:
        ask = partial(self._ping, credentials, is_probe=is_probe)
        if not upstream.fallbacks:
            return await ask(upstream)
        return await self._failover.first(upstream, ask)

    def open(self, fetch: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        return self._open_target_first(fetch, fetch.target) if fetch.target else self._open_upstream(fetch)

    def _open_upstream(self, fetch: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        upstream = fetch.resource.upstream
        if not upstream.fallbacks:
            return self._open(fetch, upstream)
        return self._failover.opened(upstream, partial(self._open, fetch))

    @asynccontextmanager
    async def _open_target_first(
        self, fetch: UpstreamRequest, target: RedirectTarget
    ) -> AsyncIterator[UpstreamResponse]:
        async with AsyncExitStack() as stack:
            opened = await self._open_target(fetch, target, stack)
            if opened is None:
                opened = await stack.enter_async_context(self._open_upstream(fetch))
            yield opened

    async def _open_target(
        self, fetch: UpstreamRequest, target: RedirectTarget, stack: AsyncExitStack
    ) -> UpstreamResponse | None:
        """The response of the redirect target, open until the stack is closed. None if the upstream must be asked: the
        target does not answer with the content, or its endpoint has failed.

        A target that has expired is no failure of its endpoint. A body that ends too early is one, so that the request
        for the rest can go to the next endpoint.
        """
        upstream, endpoint = fetch.resource.upstream, target.endpoint
        if self._failover.has_failed(upstream, endpoint):
            return None
        async with AsyncExitStack() as attempt:
            try:
                request = _request(fetch, endpoint).at_target(target.url)
                response = await attempt.enter_async_context(self._clients[endpoint].request(request))
                if response.status != (_PARTIAL if fetch.byte_range else _OK):
                    return None
                opened = _OpenResponse(response, fetch, endpoint)
            except UpstreamFault:
                return None
            stack.push_async_exit(attempt.pop_all())
        return self._failover.monitored(upstream, endpoint, opened) if upstream.fallbacks else opened

    async def _ping(
        self,
        credentials: UpstreamCredentials,
        endpoint: Upstream,
        check: Check | None = None,
        *,
        is_probe: bool = False,
    ) -> PingResponse:
        address = URL(f"{endpoint.url}/v2/", encoded=True)
        request = HttpRequest("GET", address, follow=False, check=check, is_probe=is_probe)
        server_time = None
        try:
            async with self._authorized(request, endpoint, credentials, None) as response:
                server_time = parse_http_date(response.header("Date"))
                await _check_ping(response)
                return PingResponse(accepted=True, server_time=server_time)
        except UpstreamChallenged as challenged:
            if not challenged.challenges:
                raise UpstreamBroken("the upstream answers 401 without a challenge") from challenged
            return PingResponse(accepted=False, challenges=challenged.challenges, server_time=server_time)

    @asynccontextmanager
    async def _open(
        self, fetch: UpstreamRequest, endpoint: Upstream, check: Check | None = None
    ) -> AsyncIterator[UpstreamResponse]:
        resource = fetch.resource
        request = _request(fetch, endpoint, check)
        async with self._authorized(request, endpoint, fetch.credentials, resource.scope) as response:
            if response.status not in {_OK, _PARTIAL}:
                raise await refusal_of(response, resource.kind)
            yield _OpenResponse(response, fetch, endpoint)

    @asynccontextmanager
    async def _authorized(
        self, request: HttpRequest, endpoint: Upstream, credentials: UpstreamCredentials, scope: Scope | None
    ) -> AsyncIterator[HttpResponse]:
        """The response to the request. With the mirror's own credentials, challenges are answered first.

        Logins are cached per endpoint, because endpoints may send different challenges. Credentials of a caller go to
        each endpoint unchanged.

        Harbor answers every rejected Authorization, even an expired token, with a Basic challenge. It sends its real
        challenge only to requests without Authorization. So this method tries the cached login first, then no login,
        and then a new login once.

        If the upstream rejects a new token as `invalid_token` (RFC 6750 section 3.1), it repeats the request once after
        a pause: the clock of the registry may be behind the clock of its token server.
        """
        client = self._clients[endpoint]
        if isinstance(credentials, ForwardedCredentials):
            async with client.request(request.with_authorization(credentials.raw)) as response:
                yield response
            return
        key = LoginKey(endpoint, credentials.login, scope)
        authorization = sent = self._logins.cached(key)
        while True:
            async with client.request(request.with_authorization(authorization)) as response:
                if not (response.status == _UNAUTHORIZED and response.is_own):
                    yield response
                    return
                refusal = await refusal_of(response)
            if (
                not authorization
                or not authorization.startswith("Bearer ")
                or UpstreamAuth(_challenges(refusal)).bearer
            ):
                break
            authorization = None
        login = await self._logins.answer(key, await self._challenges_of(refusal, key), refused=sent)
        if login is None:
            raise refusal
        async with client.request(request.with_authorization(login)) as response:
            if not await _is_not_valid_yet(response, login):
                yield response
                return
        await asyncio.sleep(_CLOCK_SKEW_SECONDS)
        async with client.request(request.with_authorization(login)) as response:
            yield response

    async def _challenges_of(self, refusal: RegistryError, key: LoginKey) -> tuple[Challenge, ...]:
        """The challenges of a 401 response. If it has none, as sometimes at gcr.io, those of `GET /v2/` without their
        repository scopes, which would name another repository.
        """
        if (challenges := _challenges(refusal)) or key.scope is None:
            return challenges
        try:
            pinged = (await self._ping(ForwardedCredentials(), key.upstream)).challenges
        except UpstreamFault:
            return ()
        return tuple(challenge.with_parameters(scope=general_scope(challenge)) for challenge in pinged)


async def _is_not_valid_yet(response: HttpResponse, authorization: str) -> bool:
    """Whether the registry rejects a new token as not valid."""
    if response.status != _UNAUTHORIZED or not response.is_own or not authorization.startswith("Bearer "):
        return False
    refusal = await refusal_of(response)
    bearer = UpstreamAuth(_challenges(refusal)).bearer
    if bearer is not None and bearer.get("error") == "invalid_token":
        return True
    raise refusal


def _request(fetch: UpstreamRequest, endpoint: Upstream, check: Check | None = None) -> HttpRequest:
    """The request to this endpoint, without credentials."""
    resource = fetch.resource
    headers = [("Accept", line) for line in fetch.accept]
    if fetch.byte_range:
        headers.append(("Range", str(fetch.byte_range)))
    query = f"?{urlencode(resource.query)}" if resource.query else ""
    return HttpRequest(
        "HEAD" if fetch.head else "GET",
        URL(f"{endpoint.url}/v2/{resource.path}{query}", encoded=True),
        headers,
        keeps_query=resource.kind in _LISTINGS,
        may_be_empty=resource.may_be_empty,
        check=check,
        is_extra=fetch.is_extra,
        kind=resource.kind.value,
    )


class _OpenResponse:
    """Implements UpstreamResponse. Raises UpstreamBroken if the response cannot be the content."""

    def __init__(self, response: HttpResponse, fetch: UpstreamRequest, endpoint: Upstream) -> None:
        resource = fetch.resource
        _check_content(response, resource)
        self.metadata = _metadata(response, fetch)
        if fetch.head and self.metadata.size == 0 and not resource.may_be_empty:
            raise UpstreamBroken("the upstream reports a size of 0 bytes for content that is not empty")
        # A signed address is valid for one method, and only blobs are fetched in several requests.
        is_reusable = resource.kind is ResourceKind.BLOB and not fetch.head and not response.is_own
        self.target = RedirectTarget(endpoint, str(response.raw.url)) if is_reusable else None
        self.read = response.read
        self.unread = response.unread
        self.pieces = response.pieces


def _check_content(response: HttpResponse, resource: Resource) -> None:
    """Raises UpstreamBroken for a web page: a login portal or a proxy answered instead of the upstream.

    A blob may be a web page. Then the response has the expected Docker-Content-Digest, which a portal does not send.
    """
    if resource.kind is ResourceKind.REFERRERS or not is_web_page(response.header("Content-Type")):
        return
    if resource.kind is ResourceKind.BLOB and _digest(response.header("Docker-Content-Digest")) == resource.digest:
        return
    raise UpstreamBroken(f"the upstream sent a web page instead of the {resource.kind.noun}")


async def _check_ping(response: HttpResponse) -> None:
    if response.status in _REDIRECTS:
        raise UpstreamBroken("the upstream redirects /v2/: set UPSTREAM_REGISTRY to the target of the redirect")
    try:
        await check_ok(response)
    except Denied as refusal:
        raise UpstreamBroken(refusal.message) from refusal
    version = response.header("Docker-Distribution-Api-Version") or ""
    if not version.startswith("registry/2") and response.raw.content_type != "application/json":
        raise UpstreamBroken("the upstream's answer to /v2/ is not the answer of a registry")


def _challenges(refusal: RegistryError) -> tuple[Challenge, ...]:
    return refusal.challenges if isinstance(refusal, UpstreamChallenged) else ()


def _metadata(response: HttpResponse, fetch: UpstreamRequest) -> ResponseMetadata:
    coding = response.header("Content-Encoding")
    coded = has_content_coding(coding)
    if coded and (fetch.resource.kind is ResourceKind.BLOB or response.status == _PARTIAL):
        # Blobs are forwarded by byte offset, and it is not specified whether a digest covers the coded bytes.
        raise unexpected_coding(coding)
    size = None if coded else response.raw.content_length
    span, whole = _content_range(response) if response.status == _PARTIAL else (None, None)
    if fetch.head and span:
        # A GET for one byte has replaced the HEAD; the metadata must describe the whole content.
        size, span, whole = whole, None, None
    return ResponseMetadata(
        media_type=without_parameters(response.header("Content-Type")),
        size=size,
        digest=_digest(response.header("Docker-Content-Digest")),
        span=span,
        whole_size=whole,
        link=", ".join(response.lines("Link")) or None,
        filters_applied=response.header("OCI-Filters-Applied"),
        warnings=read_warnings(response.lines("Warning")),
        allowance=read_rate_limit(response.header("RateLimit-Limit"), response.header("RateLimit-Remaining")),
        etag=_strong_etag(response),
        accepts_ranges=response.status == _PARTIAL or _accepts_ranges(response),
    )


def _strong_etag(response: HttpResponse) -> str | None:
    """The strong entity tag with its quotes; None for a weak or malformed one, and for several."""
    lines = response.lines("ETag")
    return lines[0] if len(lines) == 1 and _STRONG_ETAG.fullmatch(lines[0]) else None


def _accepts_ranges(response: HttpResponse) -> bool:
    """Whether Accept-Ranges names the range unit `bytes` (RFC 9110 section 14.3)."""
    units = (unit.strip().lower() for line in response.lines("Accept-Ranges") for unit in line.split(","))
    return "bytes" in units


def _content_range(response: HttpResponse) -> tuple[Span, int | None]:
    matched = _CONTENT_RANGE.fullmatch(response.header("Content-Range") or "")
    if not matched:
        raise UpstreamBroken("the upstream sent part of the content without a valid Content-Range")
    first, last, whole = matched.groups()
    return Span(int(first), int(last) + 1), None if whole == "*" else int(whole)


def _digest(text: str | None) -> Digest | None:
    """The digest that the upstream states; None for algorithms that the mirror cannot verify."""
    try:
        return Digest.parse(text) if text else None
    except DigestInvalid:
        return None
