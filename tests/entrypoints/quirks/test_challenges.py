"""Challenges in all the forms that registries send, and the challenges that the mirror sends instead."""

import pytest

from tests.adapters.upstream.wire import Heard, Say, reply
from tests.entrypoints.quirks.conftest import Behind
from tests.entrypoints.quirks.odd_registry import (
    BLOB_PATH,
    JSON,
    MANIFEST,
    NAME,
    PULL,
    TAG_PATH,
    Mirror,
    code_of,
    error,
    jwt,
)
from tests.entrypoints.service import basic

REALM = "http://mirror.test/v2/auth"
LONG = "x" * 60_000
AS_ANONYMOUS = {"upstream_identity": "anonymous"}
ACCOUNT = basic("alice", "right")


async def read(mirror: Mirror, path: str = TAG_PATH) -> None:
    """As a client that logs in at the realm of the challenge."""
    refused = await mirror.ask(path)
    assert refused.status == 401
    (line,) = refused.all("www-authenticate")
    assert line.startswith(f'Bearer realm="{REALM}"')
    words = dict(part.split("=", 1) for part in line.removeprefix("Bearer ").split(","))
    named = [(name, words[name].strip('"')) for name in ("service", "scope") if name in words]
    token = await mirror.log_in("&".join(f"{name}={value}" for name, value in named))
    answer = await mirror.ask(path, token)
    assert (answer.status, answer.body) == (200, mirror.registry.names[path])


async def test_of_bearer_and_basic_in_one_header_line_bearer_is_used(mirror: Behind) -> None:
    """Forgejo sends both, with the scope `*`."""
    behind = await mirror(bearer="*")
    behind.registry.challenge = f'{behind.registry.challenge},Basic realm="odd"'
    await read(behind)
    assert behind.registry.heard("/token")[-1].target == "/token?service=odd&scope=%2A"
    for_anonymous = await mirror(bearer="*", **AS_ANONYMOUS)
    for_anonymous.registry.challenge = f'{for_anonymous.registry.challenge},Basic realm="odd"'
    assert (await for_anonymous.ask(TAG_PATH)).body == MANIFEST


async def test_unquoted_challenge_is_parsed_completely(mirror: Behind) -> None:
    behind = await mirror()
    behind.registry.challenge = f"Bearer realm={behind.registry.url}/token, service=odd, scope={PULL},push"
    answer = await behind.ask(TAG_PATH)
    assert answer.all("www-authenticate") == [f'Bearer realm="{REALM}",service="odd",scope="{PULL}"']
    anonymous = await mirror(**AS_ANONYMOUS)
    anonymous.registry.challenge = f"Bearer realm={anonymous.registry.url}/token,scope={PULL},push"
    assert (await anonymous.ask(TAG_PATH)).status == 200
    assert anonymous.registry.heard("/token")[0].target.endswith("scope=repository%3Ateam%2Fapp%3Apull%2Cpush")


async def test_challenge_without_a_service_is_rewritten_without_a_service(mirror: Behind) -> None:
    behind = await mirror()
    behind.registry.challenge = f'Bearer realm="{behind.registry.url}/token"'
    refused = await behind.ask(TAG_PATH)
    assert refused.all("www-authenticate") == [f'Bearer realm="{REALM}",scope="{PULL}"']
    await read(behind)
    assert {"service=" in one.target for one in behind.registry.heard("/token")} == {False}


async def test_scope_that_is_a_single_word_is_requested_unchanged(mirror: Behind) -> None:
    """public.ecr.aws requires the scope `aws`."""
    behind = await mirror(bearer="aws")
    await read(behind)
    assert behind.registry.heard("/token")[-1].target == "/token?service=odd&scope=aws"
    anonymous = await mirror(bearer="aws", **AS_ANONYMOUS)
    assert (await anonymous.ask(BLOB_PATH)).status == 200
    assert anonymous.registry.heard("/token")[-1].target == "/token?service=odd&scope=aws"


@pytest.mark.parametrize("realm", ["/token", "../token"])
async def test_relative_realm_is_resolved_against_the_registry(mirror: Behind, realm: str) -> None:
    behind = await mirror()
    behind.registry.challenge = f'Bearer realm="{realm}",service="odd"'
    await behind.ask("/v2/")
    await read(behind, BLOB_PATH)
    untouched = await mirror(skip_auth_proxy=True)
    untouched.registry.challenge = f'Bearer realm="{realm}",service="odd"'
    where = f"{untouched.registry.url}/token"
    assert (await untouched.ask("/v2/")).all("www-authenticate") == [f'Bearer realm="{where}",service="odd"']


async def test_challenge_of_sixty_kilobytes_is_parsed(mirror: Behind) -> None:
    behind = await mirror(**AS_ANONYMOUS)
    behind.registry.challenge = f'Bearer realm="{behind.registry.url}/token?long={LONG}",service="odd"'
    assert (await behind.ask(TAG_PATH)).body == MANIFEST
    assert LONG in behind.registry.heard("/token")[0].target
    theirs = await mirror()
    theirs.registry.challenge = f'Bearer realm="{theirs.registry.url}/token?long={LONG}",service="odd"'
    await read(theirs)


def harbor(heard: Heard) -> Say | None:
    """Harbor answers an Authorization that it does not accept with a Basic challenge."""
    token = heard.header("Authorization")
    if token in {None, "Bearer t2"} or heard.target.startswith("/token"):
        return None
    return error(401, "UNAUTHORIZED", ("WWW-Authenticate", 'Basic realm="harbor"'))


async def test_stale_token_answered_with_a_basic_challenge_is_replaced(mirror: Behind) -> None:
    behind = await mirror(bearer="", **AS_ANONYMOUS)
    assert (await behind.ask(TAG_PATH)).status == 200
    behind.registry.odd, behind.registry.given = harbor, 1
    behind.registry.server.heard.clear()
    assert (await behind.ask(TAG_PATH)).body == MANIFEST
    assert behind.registry.shown("/manifests/") == ["Bearer t1", None, "Bearer t2"]
    assert len(behind.registry.heard("/token")) == 1


async def test_stale_token_of_a_client_answered_with_a_basic_challenge_gets_the_bearer_challenge(
    mirror: Behind,
) -> None:
    behind = await mirror(harbor, bearer="")
    await behind.ask("/v2/")
    refused = await behind.ask(TAG_PATH, "Bearer stale")
    expected = f'Bearer realm="{REALM}",service="odd",scope="{PULL}",error="invalid_token"'
    assert (refused.status, refused.all("www-authenticate")) == (401, [expected])
    assert behind.registry.shown("/manifests/") == ["Bearer stale"]


def silent_401(heard: Heard) -> Say | None:
    """The registry answers a resource with 401 without a challenge; only the ping has a challenge."""
    is_resource = heard.target.startswith("/v2/") and heard.target != "/v2/"
    return reply(401) if is_resource and not (heard.header("Authorization") or "").startswith("Bearer t") else None


async def test_after_a_401_without_a_challenge_the_challenge_of_the_ping_is_used(mirror: Behind) -> None:
    """gcr.io sends such a 401."""
    behind = await mirror(silent_401, bearer="", **AS_ANONYMOUS)
    assert (await behind.ask(TAG_PATH)).body == MANIFEST
    assert [one.target for one in behind.registry.server.heard if one.target != TAG_PATH] == [
        "/v2/",
        "/token?service=odd&scope=repository%3Ateam%2Fapp%3Apull",
    ]
    assert (await behind.ask(TAG_PATH)).status == 200
    assert len(behind.registry.heard("/token")) == 1


async def test_client_gets_the_challenge_of_the_ping_for_a_401_without_a_challenge(mirror: Behind) -> None:
    behind = await mirror(silent_401, bearer="")
    refused = await behind.ask(TAG_PATH, "Bearer stale")
    expected = f'Bearer realm="{REALM}",service="odd",scope="{PULL}",error="invalid_token"'
    assert (refused.status, refused.all("www-authenticate")) == (401, [expected])


async def test_registry_that_never_sends_a_challenge_is_asked_at_most_three_times(mirror: Behind) -> None:
    behind = await mirror(lambda heard: None if heard.target == "/v2/" else reply(401), **AS_ANONYMOUS)
    refused = await behind.ask(TAG_PATH)
    assert (refused.status, code_of(refused)) == (403, "DENIED")
    assert len(behind.registry.server.heard) <= 3


def hub(token: str) -> object:
    """Docker Hub issues a token without rights for a repository that does not exist, and then answers it with 401."""

    def script(heard: Heard) -> Say | None:
        if heard.target.startswith("/token"):
            return reply(200, JSON, body=f'{{"token":"{token}"}}'.encode())
        if not heard.header("Authorization"):
            return None
        challenge = f'Bearer realm="https://auth.test/token",service="odd",scope="{PULL}",error="insufficient_scope"'
        return error(401, "UNAUTHORIZED", ("WWW-Authenticate", challenge))

    return script


@pytest.mark.parametrize("access", [(), ({"type": "repository", "name": NAME, "actions": []},)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", [TAG_PATH, BLOB_PATH, f"/v2/{NAME}/tags/list"])
async def test_missing_repository_is_answered_403_without_a_challenge(
    mirror: Behind, access: tuple[dict[str, object], ...], method: str, path: str
) -> None:
    behind = await mirror(hub(jwt(*access)), bearer="")
    token = await behind.log_in()
    refused = await behind.ask(path, token, method=method)
    assert (refused.status, refused.all("www-authenticate")) == (403, [])
    assert method == "HEAD" or code_of(refused) == "DENIED"
    assert len(behind.registry.heard("/token")) == 1


@pytest.mark.parametrize("token", ["opaque", jwt({"type": "repository", "name": "team/other", "actions": ["pull"]})])
async def test_token_for_another_repository_is_answered_401_with_a_challenge(mirror: Behind, token: str) -> None:
    behind = await mirror(hub(token), bearer="")
    refused = await behind.ask(TAG_PATH, await behind.log_in())
    expected = f'Bearer realm="{REALM}",service="odd",scope="{PULL}",error="insufficient_scope"'
    assert (refused.status, refused.all("www-authenticate")) == (401, [expected])


async def test_missing_repository_is_denied_to_the_mirrors_own_login(mirror: Behind) -> None:
    behind = await mirror(hub(jwt()), bearer="", **AS_ANONYMOUS)
    refused = await behind.ask(TAG_PATH)
    assert (refused.status, code_of(refused), refused.all("www-authenticate")) == (403, "DENIED", [])
    assert behind.registry.shown("/manifests/") == [None, f"Bearer {jwt()}"]
    assert len(behind.registry.heard("/token")) == 1


async def test_missing_repository_is_denied_to_an_account(mirror: Behind) -> None:
    """With a countersigned token, and with the Basic login of the account."""
    behind = await mirror(hub("opaque"), bearer="", accounts=ACCOUNT.removeprefix("Basic "))
    answer = await behind.ask(f"/v2/auth?service=odd&scope={PULL}", ACCOUNT)
    token = answer.body.decode().partition('"token":')[2].split('"')[1]
    for shown in (f"Bearer {token}", ACCOUNT):
        refused = await behind.ask(TAG_PATH, shown)
        assert (refused.status, code_of(refused), refused.all("www-authenticate")) == (403, "DENIED", [])
