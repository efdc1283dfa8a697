"""Client of an upstream's token server (distribution, spec/auth/token.md and oauth.md)."""

import json
import math
from datetime import datetime
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_token_request
from yarl import URL

from adapters.upstream.addresses import origin_of, parse_url
from adapters.upstream.client import HttpRequest, UpstreamClients
from adapters.upstream.status_errors import check_ok
from application.ports.upstream import TokenRequest
from domain.authorization import encode_basic
from domain.challenge import Challenge
from domain.documents import parse_object
from domain.errors import CredentialsRejected, RealmNotTrusted, UpstreamBroken, UpstreamChallenged
from domain.ports import Clock
from domain.realm_policy import RealmPolicy
from domain.tokens import IssuedToken

_BODY_LIMIT = 256 * 1024
"""Bytes. The body is parsed on the event loop."""
_LENIENT_LIMIT = 64 * 1024
_DEFAULT_LIFETIME = 60
"""Seconds; the lifetime of a token without `expires_in` (distribution, spec/auth/token.md)."""
_LONGEST_LIFETIME = 24 * 3600
"""Seconds; longer lifetimes are reduced to this. The only effect is an earlier renewal."""


class HttpTokenRelay:
    """Implements TokenRelay."""

    def __init__(self, clients: UpstreamClients, realms: RealmPolicy, clock: Clock) -> None:
        self._clients = clients
        self._realms = realms
        self._clock = clock

    async def fetch(self, request: TokenRequest) -> IssuedToken:
        realm = self._trusted_realm(request)
        prepared = _refresh(request, realm) if request.refresh_token else _query(request, realm)
        try:
            async with self._clients[request.upstream].request(prepared) as response:
                await check_ok(response)
                content = await response.read(_BODY_LIMIT)
        except UpstreamChallenged as refused:
            raise CredentialsRejected(
                f"the upstream rejected the credentials: {refused.message}", detail=refused.detail
            ) from refused
        return _token(content, request, int(self._clock.now()))

    def _trusted_realm(self, request: TokenRequest) -> URL:
        realm = parse_url(request.challenge.get("realm") or "")
        if not realm.absolute:
            realm = parse_url(request.upstream.url).join(realm)
        try:
            self._realms.check(request.upstream, origin_of(realm))
        except UpstreamBroken as error:
            raise RealmNotTrusted("the upstream's challenge does not contain the address of a token server") from error
        return realm


def _query(request: TokenRequest, realm: URL) -> HttpRequest:
    """A GET request, which every token server supports. Omits absent values, because `service=None` would be a name."""
    parameters = {
        "service": _service(request.challenge),
        "client_id": request.client_id,
        "account": request.credentials.username if request.credentials else None,
        "offline_token": "true" if request.offline else None,
    }
    pairs = [(name, value) for name, value in parameters.items() if value]
    pairs += [("scope", str(scope)) for scope in request.scopes]
    query = "&".join(part for part in (realm.raw_query_string, urlencode(pairs)) if part)
    address = str(realm).partition("#")[0].partition("?")[0]
    url = URL(f"{address}?{query}" if query else address, encoded=True)
    credentials = request.credentials
    login = f"Basic {encode_basic(credentials)}" if credentials else None
    return HttpRequest("GET", url, authorization=login, kind="token")


def _refresh(request: TokenRequest, realm: URL) -> HttpRequest:
    """A refresh grant (RFC 6749 section 6). Redirects are not followed, because the body is a credential."""
    form = prepare_token_request(
        "refresh_token",
        refresh_token=request.refresh_token,
        service=_service(request.challenge) or "",
        client_id=request.client_id or "docker-image-proxy",
        scope=str(request.scopes),
    )
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    return HttpRequest("POST", realm, headers, data=form, follow=False, kind="token")


def _service(challenge: Challenge) -> str | None:
    """The service of the challenge. Raises UpstreamBroken if it is not valid UTF-8, which a URL cannot contain."""
    service = challenge.get("service")
    try:
        (service or "").encode()
    except UnicodeError as error:
        raise UpstreamBroken("the upstream's challenge names a service that is not valid UTF-8") from error
    return service


def _token(content: bytes, request: TokenRequest, now: int) -> IssuedToken:
    document = parse_object(content) or _lenient_object(content)
    if document is None:
        raise UpstreamBroken("the upstream's token server did not answer with a JSON object")
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UpstreamBroken("the upstream's token server sent no valid token")
    refresh = document.get("refresh_token")
    return IssuedToken(
        text,
        _remaining(document.get("issued_at"), _lifetime(document.get("expires_in")), now),
        now,
        request.scopes,
        refresh if isinstance(refresh, str) else None,
    )


def _lenient_object(content: bytes) -> dict[str, object] | None:
    """Parse a response whose numbers are not valid JSON (RFC 8259 section 6): NaN, Infinity, or outside the range of a
    double. Only the lifetime is a number, so the token is still usable. Only for small responses, because the parser of
    the standard library is slow.
    """
    if len(content) > _LENIENT_LIMIT:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _lifetime(expires_in: object) -> int:
    """The lifetime in seconds. The specification requires a number; a numeric string is accepted too. For any other
    value the default applies. Lifetimes are at most _LONGEST_LIFETIME.
    """
    try:
        seconds = (
            float(expires_in) if isinstance(expires_in, int | float | str) and expires_in is not True else math.nan
        )
    except (ValueError, OverflowError):
        # float() fails for an integer outside its range, and for text.
        return _LONGEST_LIFETIME if isinstance(expires_in, int) and expires_in > 0 else _DEFAULT_LIFETIME
    return int(min(seconds, _LONGEST_LIFETIME)) if seconds >= 1 else _DEFAULT_LIFETIME


def _remaining(issued_at: object, expires_in: int, now: int) -> int:
    """The remaining lifetime in seconds. The server may have cached the token, so `issued_at` counts, unless the clocks
    differ so much that no lifetime would remain.
    """
    try:
        issued = datetime.fromisoformat(str(issued_at)).timestamp()
    except (ValueError, OverflowError):
        return expires_in
    left = int(issued + expires_in - now)
    return left if 0 < left < expires_in else expires_in
