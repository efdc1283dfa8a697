"""Registries, by HTTP."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from yarl import URL

from adapters.upstream.http_client import HttpClient, Request, Response
from adapters.upstream.refusals import fault_of, refusal_of
from adapters.upstream.session_logins import LoginKey, SessionLogins
from application.ports.upstream_registry import (
    Answer,
    Facts,
    Fetch,
    Passed,
    PingAnswer,
    Resource,
    UpstreamRight,
)
from domain.access import Scope
from domain.content import Span
from domain.digest import Digest
from domain.errors import Denied, DigestInvalid, UpstreamBroken, UpstreamChallenged
from domain.upstreams import Upstream

_OK = 200
_PARTIAL = 206
_UNAUTHORIZED = 401
_REDIRECTS = range(300, 400)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
# Bytes are sacred: a digest is over what the registry stores, not over what a coding makes of it.
_UNCODED = ("Accept-Encoding", "identity")


class HttpUpstreamRegistry:
    """Plays the UpstreamRegistry."""

    def __init__(self, client: HttpClient, logins: SessionLogins) -> None:
        self._client = client
        self._logins = logins

    async def ping(self, upstream: Upstream, right: UpstreamRight) -> PingAnswer:
        request = Request("GET", URL(f"{upstream.url}/v2/", encoded=True), (_UNCODED,), follow=False)
        said_at = None
        try:
            async with self._authorized(request, upstream, right, None) as response:
                said_at = _date(response.header("Date"))
                await _check_ping(response)
                return PingAnswer(accepted=True, said_at=said_at)
        except UpstreamChallenged as challenged:
            if not challenged.challenges:
                raise UpstreamBroken("the upstream answers 401 without a challenge") from challenged
            return PingAnswer(accepted=False, challenges=challenged.challenges, said_at=said_at)

    @asynccontextmanager
    async def open(self, fetch: Fetch) -> AsyncIterator[Answer]:
        resource = fetch.resource
        headers = [_UNCODED, *(("Accept", line) for line in fetch.accept)]
        if fetch.byte_range:
            headers.append(("Range", str(fetch.byte_range)))
        request = Request("HEAD" if fetch.head else "GET", _address(resource), headers)
        async with self._authorized(request, resource.upstream, fetch.right, resource.scope) as response:
            if response.status not in {_OK, _PARTIAL}:
                raise await refusal_of(response, resource.kind)
            yield _HttpAnswer(response, of_whole=fetch.head)

    @asynccontextmanager
    async def _authorized(
        self, request: Request, upstream: Upstream, right: UpstreamRight, wanted: Scope | None
    ) -> AsyncIterator[Response]:
        """The answer to the request made with this right; for a session of ours, a challenge is answered first."""
        if isinstance(right, Passed):
            async with self._client.request(request.with_authorization(right.raw)) as response:
                yield response
            return
        key = LoginKey(upstream, right.credentials, wanted)
        sent = self._logins.remembered(key)
        async with self._client.request(request.with_authorization(sent)) as response:
            if not (response.status == _UNAUTHORIZED and response.is_own):
                yield response
                return
            refusal = await refusal_of(response)
        challenges = refusal.challenges if isinstance(refusal, UpstreamChallenged) else ()
        answer = await self._logins.answer(key, challenges, refused=sent)
        if answer is None:
            raise refusal
        async with self._client.request(request.with_authorization(answer)) as response:
            yield response


class _HttpAnswer:
    """Plays the Answer."""

    def __init__(self, response: Response, *, of_whole: bool) -> None:
        self._response = response
        facts = _facts(response)
        # One byte may have stood in for a HEAD; what is said is said of the whole all the same.
        whole = replace(facts, size=facts.whole_size, span=None, whole_size=None)
        self.facts = whole if of_whole and facts.span else facts
        self.read = response.read
        self.pieces = response.pieces


async def _check_ping(response: Response) -> None:
    if response.status in _REDIRECTS:
        raise UpstreamBroken("the upstream redirects /v2/: set UPSTREAM_REGISTRY to the address that it names")
    if response.status != _OK:
        refusal = await fault_of(response)
        raise UpstreamBroken(refusal.message) if isinstance(refusal, Denied) else refusal
    version = response.header("Docker-Distribution-Api-Version") or ""
    if not version.startswith("registry/2") and response.raw.content_type != "application/json":
        raise UpstreamBroken("the upstream does not answer /v2/ as a registry does")


def _date(field: str | None) -> float | None:
    """Seconds since 1970 (RFC 9110 section 5.6.7)."""
    try:
        return parsedate_to_datetime(field).timestamp() if field else None
    except (ValueError, OverflowError):
        return None


def _address(resource: Resource) -> URL:
    query = f"?{urlencode(resource.query)}" if resource.query else ""
    return URL(f"{resource.upstream.url}/v2/{resource.path}{query}", encoded=True)


def _facts(response: Response) -> Facts:
    coding = response.header("Content-Encoding")
    if coding and coding.lower() != "identity":
        raise UpstreamBroken(f"the upstream sent content coded with {coding[:32]!r}, which nobody asked for")
    span, whole = _content_range(response) if response.status == _PARTIAL else (None, None)
    return Facts(
        media_type=response.header("Content-Type"),
        size=response.raw.content_length,
        digest=_digest(response.header("Docker-Content-Digest")),
        span=span,
        whole_size=whole,
        link=response.header("Link"),
        filters_applied=response.header("OCI-Filters-Applied"),
        warnings=response.lines("Warning"),
    )


def _content_range(response: Response) -> tuple[Span, int | None]:
    matched = _CONTENT_RANGE.fullmatch(response.header("Content-Range") or "")
    if not matched:
        raise UpstreamBroken("the upstream sent a part of the content without saying which")
    first, last, whole = matched.groups()
    return Span(int(first), int(last) + 1), None if whole == "*" else int(whole)


def _digest(text: str | None) -> Digest | None:
    """What the upstream claims; one of an algorithm that we cannot verify is no claim for us."""
    try:
        return Digest.parse(text) if text else None
    except DigestInvalid:
        return None
