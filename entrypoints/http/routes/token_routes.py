"""Routes of the token endpoint (distribution, spec/auth/token.md for GET, spec/auth/oauth.md for POST)."""

import re
from datetime import UTC, datetime

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError, UnsupportedGrantTypeError
from sanic import Blueprint, HTTPResponse, Request

from application.access.grant_token import TokenQuery
from domain.access import Credentials, ScopeSet
from domain.authorization import Basic
from domain.challenge import Challenge
from domain.documents import print_json
from domain.errors import CredentialsRejected
from domain.tokens import IssuedToken
from entrypoints.http.requests.forms import form_of
from entrypoints.http.responses.error_responses import error_body
from entrypoints.http.routes.pull_routes import caller_of, client_address, hint_for
from entrypoints.http.runtime import runtime_of

_NOT_STORED = {"Cache-Control": "no-store"}
# RFC 6749 section 5.2: characters that error_description must not contain.
_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


tokens = Blueprint("tokens")


@tokens.get("/v2/auth")
async def token_by_get(request: Request) -> HTTPResponse:
    request.ctx.route = "token"
    args = request.get_args(keep_blank_values=False)
    caller = caller_of(request)
    authorization = caller.authorization
    query = TokenQuery(
        service=args.get("service"),
        scopes=ScopeSet.parse(args.getlist("scope", [])),
        credentials=_named(authorization.credentials) if isinstance(authorization, Basic) else None,
        has_other_login=authorization is not None and not isinstance(authorization, Basic),
        offline=args.get("offline_token") == "true",
        client_id=args.get("client_id"),
        address=caller.address,
        hint=hint_for(request),
    )
    return _token_answer(await runtime_of(request).container.grant_token()(query))


@tokens.post("/v2/auth")
async def token_by_post(request: Request) -> HTTPResponse:
    request.ctx.route = "token"
    try:
        token = await runtime_of(request).container.grant_token()(_form_query(request))
    except CredentialsRejected as refused:
        # 401 instead of OAuth2's 400, because it makes containerd and buildkit retry with GET.
        response = _oauth_error(
            InvalidGrantError(_DESCRIPTION.sub("?", refused.message), status_code=401), refused.code
        )
        response.headers["WWW-Authenticate"] = str(
            Challenge.of("Basic", realm=runtime_of(request).settings.self_auth_service)
        )
        return response
    except OAuth2Error as error:
        return _oauth_error(error, "UNSUPPORTED")
    return _token_answer(token)


def _form_query(request: Request) -> TokenQuery:
    """Raises an OAuth2 error of RFC 6749 section 5.2."""
    try:
        form = form_of(request)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
    grant = form.get("grant_type")
    if grant == "password":
        credentials = _named(Credentials(form.get("username") or "", form.get("password") or ""))
        refresh_token = None
    elif grant == "refresh_token" and form.get("refresh_token"):
        credentials, refresh_token = None, form.get("refresh_token")
    else:
        raise UnsupportedGrantTypeError(str(grant))
    return TokenQuery(
        service=form.get("service"),
        scopes=ScopeSet.parse(form.getlist("scope", [])),
        credentials=credentials,
        refresh_token=refresh_token,
        offline=form.get("access_type") == "offline",
        client_id=form.get("client_id"),
        address=client_address(request),
        hint=hint_for(request),
    )


def _named(credentials: Credentials) -> Credentials | None:
    """None for an empty user name with an empty password, which podman sends if it has no login."""
    return credentials if credentials.username or credentials.password else None


def _token_answer(token: IssuedToken) -> HTTPResponse:
    """The token under both names: some clients read `token`, others `access_token`."""
    document: dict[str, object] = {
        "token": token.text,
        "access_token": token.text,
        "expires_in": token.expires_in,
        "issued_at": datetime.fromtimestamp(token.issued_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": str(token.scopes),
    }
    if token.refresh_token:
        document["refresh_token"] = token.refresh_token
    return HTTPResponse(print_json(document), 200, _NOT_STORED, "application/json")


def _oauth_error(error: OAuth2Error, code: str) -> HTTPResponse:
    """One body with the fields of RFC 6749 and those of the registry API, for both kinds of clients."""
    document = dict(error.get_body()) | error_body(code, error.get_error_description(), None)
    return HTTPResponse(print_json(document), error.status_code, _NOT_STORED, "application/json")
