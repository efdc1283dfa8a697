"""Token servers that answer differently from that of distribution, and how long their tokens are used."""

import asyncio
import gzip
import json

import pytest

from tests.adapters.upstream.wire import Heard, Say, reply
from tests.entrypoints.quirks.conftest import Behind
from tests.entrypoints.quirks.odd_registry import JSON, MANIFEST, NAME, PULL, TAG_PATH, Script, code_of, error

AS_ANONYMOUS = {"upstream_identity": "anonymous"}
TOKEN = f"/v2/auth?service=odd&scope={PULL}"


def at_token(said: Say) -> Script:
    """The token server gives this answer to every request."""
    return lambda heard: said if heard.target.startswith("/token") else None


def giving(document: dict[str, object], *headers: tuple[str, str]) -> Say:
    return reply(200, JSON, *headers, body=json.dumps(document).encode())


async def test_token_named_only_access_token_is_accepted(mirror: Behind) -> None:
    """docker.elastic.co sends only `access_token`. The mirror sends both names, because some clients read only one."""
    said = at_token(giving({"access_token": "t0", "expires_in": 300}))
    theirs = await mirror(said, bearer="")
    document = json.loads((await theirs.ask(TOKEN)).body)
    assert (document["token"], document["access_token"]) == ("t0", "t0")
    assert (await theirs.ask(TAG_PATH, "Bearer t0")).body == MANIFEST
    assert (await (await mirror(said, bearer="", **AS_ANONYMOUS)).ask(TAG_PATH)).body == MANIFEST


async def test_token_without_a_lifetime_lives_for_a_minute(mirror: Behind) -> None:
    said = at_token(giving({"token": "t0"}))
    theirs = await mirror(said, bearer="")
    assert json.loads((await theirs.ask(TOKEN)).body)["expires_in"] == 60
    anonymous = await mirror(said, bearer="", **AS_ANONYMOUS)
    for _ in range(2):
        assert (await anonymous.ask(TAG_PATH)).status == 200
    assert len(anonymous.registry.heard("/token")) == 1


async def test_token_encoded_with_gzip_is_decoded(mirror: Behind) -> None:
    body = gzip.compress(b'{"token":"t0"}')
    behind = await mirror(at_token(reply(200, JSON, ("Content-Encoding", "gzip"), body=body)), bearer="")
    assert await behind.log_in() == "Bearer t0"
    assert behind.registry.heard("/token")[0].lines("Accept-Encoding") == ["identity"]


@pytest.mark.parametrize("status", [401, 403])
async def test_denied_anonymous_token_is_answered_403_without_a_challenge(mirror: Behind, status: int) -> None:
    """ghcr.io issues no anonymous token for a private or missing repository."""
    behind = await mirror(at_token(error(status, "DENIED")), bearer="", **AS_ANONYMOUS)
    for method in ("GET", "HEAD"):
        refused = await behind.ask(TAG_PATH, method=method)
        assert (refused.status, refused.all("www-authenticate")) == (403, [])
    assert code_of(await behind.ask(TAG_PATH)) == "DENIED"


async def test_denied_token_of_a_client_is_answered_403(mirror: Behind) -> None:
    behind = await mirror(at_token(error(403, "DENIED")), bearer="")
    refused = await behind.ask(TOKEN)
    assert (refused.status, code_of(refused)) == (403, "DENIED")
    assert b"as the registry says" in refused.body
    assert len(behind.registry.heard("/token")) == 1


def wants_scope(heard: Heard) -> Say | None:
    """registry.istio.io answers token requests without a scope with 400."""
    without = heard.target.startswith("/token") and "scope=" not in heard.target
    return reply(400, ("Content-Type", "text/plain"), body=b"scope is required") if without else None


async def test_token_server_that_requires_a_scope_gets_one(mirror: Behind) -> None:
    theirs = await mirror(wants_scope, bearer="")
    assert (await theirs.ask(TAG_PATH, await theirs.log_in())).body == MANIFEST
    anonymous = await mirror(wants_scope, bearer="", **AS_ANONYMOUS)
    assert (await anonymous.ask(TAG_PATH)).body == MANIFEST


async def test_token_request_without_a_required_scope_is_answered_400(mirror: Behind) -> None:
    """It is not an outage of the upstream: after a 502 clients would try again."""
    behind = await mirror(wants_scope, bearer="")
    refused = await behind.ask("/v2/auth?service=odd")
    assert (refused.status, code_of(refused)) == (400, "UNSUPPORTED")


THROTTLED = [
    (JSON, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'),
    (("Content-Type", "text/plain"), b"Too Many Requests (HAP429)"),
    (("Content-Type", "text/html"), b"<html>429</html>"),
]


@pytest.mark.parametrize("retry", ["7", "Wed, 21 Oct 2026 07:28:00 GMT", None])
@pytest.mark.parametrize(("kind", "body"), THROTTLED)
async def test_429_of_the_token_server_is_passed_on_without_a_retry(
    mirror: Behind, kind: tuple[str, str], body: bytes, retry: str | None
) -> None:
    headers = [kind, *([("Retry-After", retry)] if retry else [])]
    for settings, path in (({}, TOKEN), (AS_ANONYMOUS, TAG_PATH)):
        behind = await mirror(at_token(reply(429, *headers, body=body)), bearer="", **settings)
        refused = await behind.ask(path)
        assert (refused.status, code_of(refused), refused.get("retry-after")) == (429, "TOOMANYREQUESTS", retry)
        assert len(behind.registry.heard("/token")) == 1


@pytest.mark.parametrize("retry", ["7", "Wed, 21 Oct 2026 07:28:00 GMT", None])
@pytest.mark.parametrize(("kind", "body"), THROTTLED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_429_of_the_registry_is_passed_on_without_a_retry(
    mirror: Behind, method: str, kind: tuple[str, str], body: bytes, retry: str | None
) -> None:
    headers = [kind, *([("Retry-After", retry)] if retry else [])]
    said = reply(429, *headers, body=body)
    behind = await mirror(lambda heard: said if "/manifests/" in heard.target else None, **AS_ANONYMOUS)
    refused = await behind.ask(TAG_PATH, method=method)
    assert (refused.status, refused.get("retry-after")) == (429, retry)
    assert method == "HEAD" or code_of(refused) == "TOOMANYREQUESTS"
    assert len(behind.registry.heard("/manifests/")) == 1


async def test_refused_cached_token_is_replaced_once(mirror: Behind) -> None:
    behind = await mirror(bearer="", **AS_ANONYMOUS)
    await behind.ask(TAG_PATH)
    behind.registry.given += 1  # so the registry does not accept t1 any more
    behind.registry.server.heard.clear()
    assert (await behind.ask(TAG_PATH)).body == MANIFEST
    assert behind.registry.shown("/manifests/") == ["Bearer t1", "Bearer t3"]
    behind.registry.odd = lambda heard: (
        error(401, "UNAUTHORIZED", ("WWW-Authenticate", behind.registry.bearer())) if heard.target == TAG_PATH else None
    )
    behind.registry.server.heard.clear()
    assert (await behind.ask(TAG_PATH)).status == 403
    assert behind.registry.shown("/manifests/") == ["Bearer t3", "Bearer t4"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_new_token_that_is_refused_once_is_sent_again(mirror: Behind, method: str) -> None:
    """The clock of the registry is behind that of its token server, so the token is not valid yet."""
    behind = await mirror(bearer="", **AS_ANONYMOUS)
    challenge = behind.registry.bearer() + ',error="invalid_token"'
    refused: list[Heard] = []

    def too_early(heard: Heard) -> Say | None:
        if heard.target == TAG_PATH and heard.lines("Authorization") and not refused:
            refused.append(heard)
            return error(401, "UNAUTHORIZED", ("WWW-Authenticate", challenge))
        return None

    behind.registry.odd = too_early
    assert (await behind.ask(TAG_PATH, method=method)).status == 200
    assert len(refused) == 1
    assert len(behind.registry.heard("/token")) == 1, "the same token is sent again"


async def test_new_token_that_is_refused_twice_is_answered_403(mirror: Behind) -> None:
    behind = await mirror(bearer="", **AS_ANONYMOUS)
    challenge = behind.registry.bearer() + ',error="invalid_token"'
    behind.registry.odd = lambda heard: (
        error(401, "UNAUTHORIZED", ("WWW-Authenticate", challenge)) if heard.target == TAG_PATH else None
    )
    assert (await behind.ask(TAG_PATH)).status == 403
    shown = behind.registry.shown("/manifests/")
    assert len([one for one in shown if one]) == 2


async def test_refused_token_of_a_caller_is_answered_401_without_a_retry(mirror: Behind) -> None:
    """The client gets the challenge and fetches another token itself."""
    behind = await mirror(bearer="")
    token = await behind.log_in()
    challenge = behind.registry.bearer() + ',error="invalid_token"'
    behind.registry.odd = lambda heard: (
        error(401, "UNAUTHORIZED", ("WWW-Authenticate", challenge)) if heard.target == TAG_PATH else None
    )
    behind.registry.server.heard.clear()
    answer = await behind.ask(TAG_PATH, token)
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.get("www-authenticate")
    assert behind.registry.shown("/manifests/") == [token]


async def test_twenty_requests_share_one_token_request(mirror: Behind) -> None:
    behind = await mirror(bearer="", **AS_ANONYMOUS)
    answers = await asyncio.gather(*(behind.ask(f"/v2/{NAME}/manifests/v{number}") for number in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(behind.registry.heard("/token")) == 1
