"""`docker pull` through the mirror in rows 6 to 8 of the trust table: the mirror has accounts."""

import pytest

from tests.e2e.support.docker import Docker
from tests.e2e.support.pull_checks import assert_all_fetched, pull_whole, users
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import (
    ACCOUNTS,
    PRIVATE,
    PUBLIC,
    Content,
    LoggedUpstream,
    TokenUpstream,
    account_entry,
)

pytestmark = pytest.mark.real("docker-registry", "dockerd")

ALICE = ("alice", ACCOUNTS["alice"])
BOB = ("bob", ACCOUNTS["bob"])


def assert_others_get_nothing(docker: Docker, upstream: LoggedUpstream) -> None:
    """bob is an account of the upstream, but not of the mirror: none of his requests may reach the upstream."""
    docker.forget_images()
    since = upstream.mark()
    for login in (None, BOB, ("alice", "wrong")):
        docker.log_out_of_hub() if login is None else docker.log_in_to_hub_as(*login)
        assert docker.pull(f"{PUBLIC}:1").status != 0
    assert upstream.content_requests(since) == []


def test_row_6_only_an_account_pulls_from_an_open_upstream(
    docker: Docker, mirror: Serving, spied_open: LoggedUpstream, content: Content
) -> None:
    since = spied_open.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(**spied_open.settings, ACCOUNTS=account_entry("alice")):
        pull_whole(docker, content, PRIVATE)
        requests = spied_open.content_requests(since)
        entries = spied_open.log(since)
        assert_others_get_nothing(docker, spied_open)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE])
    assert {entry["authorization"] for entry in entries} == {None}


def test_row_6_an_account_pulls_with_the_mirrors_own_upstream_login(
    docker: Docker,
    mirror: Serving,
    spied_token: LoggedUpstream,
    token_registry: TokenUpstream,
    content: Content,
) -> None:
    since, asked = spied_token.mark(), token_registry.server.mark()
    docker.log_in_to_hub_as(*BOB)
    operator = {"UPSTREAM_USERNAME": "alice", "UPSTREAM_PASSWORD": ACCOUNTS["alice"]}
    with mirror(**spied_token.settings, **operator, ACCOUNTS=account_entry("bob")):
        pull_whole(docker, content, PRIVATE)
    requests = spied_token.content_requests(since)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE], logs_in=True)
    assert users(requests) == {"alice"}
    assert "bob" not in {entry["account"] for entry in token_registry.token_requests(asked)}


def test_row_6_an_account_pulls_public_content(
    docker: Docker, mirror: Serving, token_registry: TokenUpstream, content: Content
) -> None:
    since, asked = token_registry.mark(), token_registry.server.mark()
    docker.log_in_to_hub_as(*BOB)
    with mirror(**token_registry.settings, UPSTREAM_IDENTITY="anonymous", ACCOUNTS=account_entry("bob")):
        pull_whole(docker, content, PUBLIC)
    assert_all_fetched(token_registry.content_requests(since), PUBLIC, content.images[PUBLIC], logs_in=True)
    assert not any(entry["credentials"] for entry in token_registry.token_requests(asked))


def test_row_7_only_an_account_pulls_with_a_countersigned_token(
    docker: Docker, mirror: Serving, spied_token: LoggedUpstream, content: Content
) -> None:
    since = spied_token.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(**spied_token.settings, ACCOUNTS=account_entry("alice")) as proxy:
        pull_whole(docker, content, PRIVATE)
        assert "~" in proxy.token(f"repository:{PRIVATE}:pull", "alice")
        requests = spied_token.content_requests(since)
        assert_others_get_nothing(docker, spied_token)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE])
    assert users(requests) == {"alice"}


def test_row_8_only_the_basic_credentials_of_an_account_are_passed_on(
    docker: Docker, mirror: Serving, spied_htpasswd: LoggedUpstream, content: Content
) -> None:
    since = spied_htpasswd.mark()
    docker.log_in_to_hub_as(*ALICE)
    with mirror(**spied_htpasswd.settings, ACCOUNTS=account_entry("alice")) as proxy:
        assert proxy.get("/v2/").headers["WWW-Authenticate"].startswith("Basic ")
        pull_whole(docker, content, PRIVATE)
        requests = spied_htpasswd.content_requests(since)
        assert_others_get_nothing(docker, spied_htpasswd)
    assert_all_fetched(requests, PRIVATE, content.images[PRIVATE])
    assert users(requests) == {"alice"}
