"""`docker pull` through the mirror in rows 1 to 5 of the trust table: the mirror has no accounts."""

import pytest

from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.pull_checks import assert_all_fetched, pull_whole, users
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import ACCOUNTS, PRIVATE, PUBLIC, SINGLE, Content, LoggedUpstream, TokenUpstream

pytestmark = pytest.mark.real("docker-registry", "dockerd")

ALICE = ("alice", ACCOUNTS["alice"])
BOB = ("bob", ACCOUNTS["bob"])
AS_ALICE = {"UPSTREAM_USERNAME": "alice", "UPSTREAM_PASSWORD": ACCOUNTS["alice"]}


def test_row_1_an_open_upstream_needs_no_login(
    docker: Docker, mirror: Serving, open_registry: Registry, content: Content
) -> None:
    since = open_registry.mark()
    with mirror(**open_registry.settings, SKIP_AUTH_PROXY="true") as proxy:
        assert proxy.get("/v2/").status == 200
        assert proxy.get("/v2/auth").status == 404
        pull_whole(docker, content, PUBLIC)
    assert_all_fetched(open_registry.content_requests(since), PUBLIC, content.images[PUBLIC])


def test_row_1_the_token_comes_from_the_upstreams_own_server(
    docker: Docker, mirror: Serving, token_registry: TokenUpstream, content: Content
) -> None:
    since, asked = token_registry.mark(), token_registry.server.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(**token_registry.settings, SKIP_AUTH_PROXY="true") as proxy:
        assert f'realm="{token_registry.realm}"' in proxy.get("/v2/").headers["WWW-Authenticate"]
        assert proxy.get("/v2/auth").status == 404
        pull_whole(docker, content, PRIVATE)
    assert_all_fetched(token_registry.content_requests(since), PRIVATE, content.images[PRIVATE])
    tokens = token_registry.token_requests(asked)
    assert {entry["account"] for entry in tokens} == {"alice"}
    # docker itself sent the token requests to the realm of the upstream.
    assert all(entry["agent"].startswith("docker/") for entry in tokens)


def test_row_1_basic_credentials_pass_through(
    docker: Docker, mirror: Serving, spied_htpasswd: LoggedUpstream, content: Content
) -> None:
    since = spied_htpasswd.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(UPSTREAM_REGISTRY=spied_htpasswd.url, SKIP_AUTH_PROXY="true"):
        pull_whole(docker, content, PRIVATE)
    requests = spied_htpasswd.content_requests(since)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE])
    assert users(requests) == {"alice"}


@pytest.mark.parametrize("name", [PUBLIC, SINGLE])
def test_row_2_the_mirror_issues_tokens_to_everyone_and_does_not_send_them_upstream(
    docker: Docker, mirror: Serving, spied_open: LoggedUpstream, content: Content, name: str
) -> None:
    since = spied_open.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(**spied_open.settings) as proxy:
        challenged = proxy.get("/v2/")
        assert challenged.status == 401
        challenge = f'Bearer realm="{proxy.url}/v2/auth",service="docker-image-proxy"'
        assert challenged.headers["WWW-Authenticate"].startswith(challenge)
        pull_whole(docker, content, name)
    assert_all_fetched(spied_open.content_requests(since), name, content.images[name])
    assert {entry["authorization"] for entry in spied_open.log(since)} == {None}


@pytest.mark.parametrize(("name", "login"), [(PUBLIC, ()), (PUBLIC, BOB), (PRIVATE, ALICE)])
def test_row_3_the_callers_credentials_are_relayed(
    docker: Docker, mirror: Serving, token_registry: TokenUpstream, content: Content,
    *, name: str, login: tuple[str, ...],
) -> None:  # fmt: skip
    since, asked = token_registry.mark(), token_registry.server.mark()
    if login:
        docker.log_in_to_hub_as(*login)
    with mirror(**token_registry.settings, CACHE_DIR="off") as proxy:
        challenge = f'Bearer realm="{proxy.url}/v2/auth",service="e2e-upstream"'
        assert proxy.get("/v2/").headers["WWW-Authenticate"].startswith(challenge)
        pull_whole(docker, content, name)
    assert_all_fetched(token_registry.content_requests(since), name, content.images[name])
    tokens = [entry for entry in token_registry.token_requests(asked) if entry["scopes"]]
    assert {entry["account"] for entry in tokens} == {login[0] if login else None}
    assert {scope for entry in tokens for scope in entry["scopes"]} == {f"repository:{name}:pull"}


@pytest.mark.parametrize("login", [(), BOB, ("alice", "wrong")])
def test_row_3_a_refusal_by_the_upstream_is_passed_on(
    docker: Docker, mirror: Serving, token_registry: TokenUpstream, login: tuple[str, ...]
) -> None:
    since = token_registry.mark()
    if login:
        docker.log_in_to_hub_as(*login)
    with mirror(**token_registry.settings):
        assert docker.pull(f"{PRIVATE}:1").status != 0
    assert {request.status for request in token_registry.content_requests(since)} <= {401}


def test_row_4_a_basic_challenge_passes_unchanged(
    docker: Docker, mirror: Serving, spied_htpasswd: LoggedUpstream, content: Content
) -> None:
    since = spied_htpasswd.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(**spied_htpasswd.settings) as proxy:
        assert proxy.get("/v2/").headers["WWW-Authenticate"] == 'Basic realm="e2e htpasswd"'
        pull_whole(docker, content, PRIVATE)
    requests = spied_htpasswd.content_requests(since)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE])
    assert users(requests) == {"alice"}


def test_row_4_a_pull_without_credentials_fails(docker: Docker, mirror: Serving, htpasswd_registry: Registry) -> None:
    since = htpasswd_registry.mark()
    with mirror(**htpasswd_registry.settings):
        assert docker.pull(f"{PUBLIC}:1").status != 0
    assert {request.status for request in htpasswd_registry.content_requests(since)} <= {401}


def test_row_5_with_identity_anonymous_the_mirror_serves_public_content_to_everyone(
    docker: Docker, mirror: Serving, token_registry: TokenUpstream, content: Content
) -> None:
    since, asked = token_registry.mark(), token_registry.server.mark()
    docker.log_in_to_hub_as(*BOB)
    with mirror(**token_registry.settings, UPSTREAM_IDENTITY="anonymous") as proxy:
        assert 'service="docker-image-proxy"' in proxy.get("/v2/").headers["WWW-Authenticate"]
        pull_whole(docker, content, PUBLIC)
        assert docker.pull(f"{PRIVATE}:1").status != 0
    requests = token_registry.content_requests(since)
    fetched = [request for request in requests if PUBLIC in request.path]
    assert_all_fetched(fetched, PUBLIC, content.images[PUBLIC], logs_in=True)
    assert {request.status for request in requests if PRIVATE in request.path} == {401}
    assert not any(entry["credentials"] for entry in token_registry.token_requests(asked))


def test_row_5_with_identity_service_the_mirror_fetches_with_its_own_login(
    docker: Docker,
    mirror: Serving,
    spied_token: LoggedUpstream,
    token_registry: TokenUpstream,
    content: Content,
) -> None:
    since, asked = spied_token.mark(), token_registry.server.mark()
    docker.log_in_to_hub_as(*BOB)
    with mirror(**spied_token.settings, **AS_ALICE):
        pull_whole(docker, content, PRIVATE)
    requests = spied_token.content_requests(since)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE], logs_in=True)
    assert users(requests) == {"alice"}
    assert "bob" not in {entry["account"] for entry in token_registry.token_requests(asked)}


def test_row_5_with_identity_service_the_mirror_answers_a_basic_challenge(
    docker: Docker, mirror: Serving, spied_htpasswd: LoggedUpstream, content: Content
) -> None:
    since = spied_htpasswd.mark()
    with mirror(**spied_htpasswd.settings, **AS_ALICE):
        pull_whole(docker, content, PRIVATE)
    requests = spied_htpasswd.content_requests(since)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE], logs_in=True)
    assert users(requests) == {"alice"}
