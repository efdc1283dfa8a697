"""Maps unsuccessful responses of an upstream to errors of the domain."""

import re

from yarl import URL

from adapters.upstream.addresses import parse_url
from adapters.upstream.client import HttpResponse
from application.ports.upstream import ResourceKind
from domain.allowance import read_rate_limit
from domain.challenge import Challenge, parse_challenges
from domain.documents import is_nested_deeper, one_line, parse_object
from domain.errors import (
    BlobUnknown,
    ContentUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeUnsatisfiable,
    ReferrersUnsupported,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamFault,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimedOut,
)

_BODY_LIMIT = 64 * 1024
_TEXT_LIMIT = 512
_OK = 200
_CLIENT_ERRORS = range(400, 500)
_NOT_IMPLEMENTED = frozenset({405, 501})
_DETAIL_LEVELS = 16
_UNKNOWN: dict[ResourceKind | None, type[ContentUnknown]] = {
    ResourceKind.MANIFEST: ManifestUnknown,
    ResourceKind.BLOB: BlobUnknown,
    ResourceKind.REFERRERS: ReferrersUnsupported,
}


async def refusal_of(response: HttpResponse, kind: ResourceKind | None = None) -> RegistryError:
    """The error for an unsuccessful response. HTML, XML and plain text are never forwarded."""
    if not response.is_own and response.status in {401, 403}:
        # The storage of the registry answered. Its 401 or 403 says nothing about the permissions of this caller.
        return UpstreamBroken("the upstream redirected to its storage, which denied access")
    code, text, detail = await _read_error(response)
    message = text or f"the upstream answered {response.status}"
    match response.status:
        case 401:
            challenges = parse_challenges(response.lines("WWW-Authenticate"))
            placed = tuple(_with_absolute_realm(challenge, response.raw.url) for challenge in challenges)
            return UpstreamChallenged(message, challenges=placed, detail=detail)
        case 416:
            return RangeUnsatisfiable(message, size=_whole_size(response))
        case 429:
            left = read_rate_limit(response.header("RateLimit-Limit"), response.header("RateLimit-Remaining"))
            retry_after = response.header("Retry-After")
            return UpstreamThrottled(message, retry_after=retry_after, allowance=left, detail=detail)
    return _class_of(response.status, code, kind)(message, detail=detail)


async def check_ok(response: HttpResponse) -> None:
    """Raises an error unless the status is 200. As `refusal_of`, for requests that the mirror makes for itself: client
    errors become UpstreamBroken.
    """
    if response.status == _OK:
        return
    refusal = await refusal_of(response)
    if isinstance(refusal, UpstreamFault | UpstreamChallenged | Denied):
        raise refusal
    raise UpstreamBroken(refusal.message)


def _with_absolute_realm(challenge: Challenge, base: URL) -> Challenge:
    """The challenge with an absolute realm. Clients would resolve a relative realm against the mirror's address."""
    realm = challenge.get("realm")
    if not challenge.is_bearer or not realm:
        return challenge
    try:
        address = parse_url(realm)
        return challenge if address.scheme else challenge.with_parameters(realm=str(base.join(address)))
    except (UpstreamBroken, ValueError):
        return challenge  # the code that uses the realm reports the error


def _class_of(status: int, code: str, kind: ResourceKind | None) -> type[RegistryError]:
    if kind is ResourceKind.REFERRERS and (status in _NOT_IMPLEMENTED or code == "UNSUPPORTED"):
        return ReferrersUnsupported
    match status:
        case 403:
            return Denied
        case 404:
            return NameUnknown if code == "NAME_UNKNOWN" else _UNKNOWN.get(kind, NameUnknown)
        case 408 | 504:
            return UpstreamTimedOut
    return UpstreamRejected if status in _CLIENT_ERRORS else UpstreamBroken


async def _read_error(response: HttpResponse) -> tuple[str, str, object]:
    """Code, message and detail of the first error in an OCI error body. They are empty for any other body."""
    if response.raw.method == "HEAD":
        return "", "", None
    try:
        document = parse_object(await response.read(_BODY_LIMIT)) or {}
        first = document["errors"][0]  # type: ignore[index]  # the except clause handles every other type
        detail = first.get("detail")
        # Printing a deeply nested value exhausts the interpreter's stack, as parsing does.
        shown = None if is_nested_deeper(detail, _DETAIL_LEVELS) else detail
        return str(first["code"]), one_line(str(first.get("message", ""))[:_TEXT_LIMIT]), shown
    except (UpstreamBroken, ValueError, LookupError, TypeError, AttributeError):
        return "", "", None


def _whole_size(response: HttpResponse) -> int | None:
    matched = re.fullmatch(r"bytes \*/([0-9]{1,19})", response.header("Content-Range") or "")
    return int(matched[1]) if matched else None
