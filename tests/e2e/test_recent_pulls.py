"""The page lists the newest pulls of all workers, each to those who may pull the same."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.images import OCI_MANIFEST
from tests.e2e.support.plain_http import send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, LoggedUpstream, account_entry, basic

pytestmark = pytest.mark.real("docker-registry")

ACCEPT = {"Accept": OCI_MANIFEST}


@pytest.fixture
def mirror(serve: Serving, spied_token: LoggedUpstream) -> Iterator[Proxy]:
    with serve(**spied_token.settings) as proxy:
        yield proxy


@pytest.fixture
def mirror_with_accounts(serve: Serving, spied_token: LoggedUpstream) -> Iterator[Proxy]:
    accounts = ",".join(map(account_entry, ("alice", "bob")))
    with serve(ACCOUNTS=accounts, **spied_token.settings) as proxy:
        yield proxy


def pulled_by_each_worker(proxy: Proxy, name: str, account: str | None) -> None:
    token = proxy.token(f"repository:{name}:pull", account)
    with proxy.connection_to_each_worker() as connections:
        for connection in connections:
            headers = {**ACCEPT, "Authorization": f"Bearer {token}"}
            assert send(connection, "GET", f"/v2/{name}/manifests/1", headers).status == 200


def lists(proxy: Proxy, authorization: str | None = None) -> list[str]:
    """The page as each worker shows it."""
    headers = {"Authorization": authorization} if authorization else {}
    with proxy.connection_to_each_worker() as connections:
        answers = [send(connection, "GET", "/pulls", headers) for connection in connections]
    assert {answer.status for answer in answers} == {200}
    return [answer.body.decode() for answer in answers]


def counts(proxy: Proxy, name: str, authorization: str | None = None) -> set[int]:
    """How many pulls of the image each worker lists."""
    return {page.count(f"</span>{name}:1<") for page in lists(proxy, authorization)}


def test_every_worker_lists_the_pulls_of_all(mirror: Proxy) -> None:
    pulled_by_each_worker(mirror, PUBLIC, None)
    assert wait_until(lambda: counts(mirror, PUBLIC) == {2}, 15)


def test_without_accounts_nobody_sees_what_only_alice_was_given(mirror: Proxy) -> None:
    pulled_by_each_worker(mirror, PRIVATE, "alice")
    pulled_by_each_worker(mirror, PUBLIC, None)
    assert wait_until(lambda: counts(mirror, PUBLIC) == {2}, 15)
    for authorization in (None, basic("alice"), basic("bob"), "Bearer abc"):
        for page in lists(mirror, authorization):
            assert PRIVATE not in page, authorization
            assert "alice" not in page, authorization


def test_with_accounts_each_sees_only_what_it_was_given(mirror_with_accounts: Proxy) -> None:
    mirror = mirror_with_accounts
    pulled_by_each_worker(mirror, PRIVATE, "alice")
    pulled_by_each_worker(mirror, PUBLIC, "bob")
    assert wait_until(lambda: counts(mirror, PRIVATE, basic("alice")) == {2}, 15)
    assert wait_until(lambda: counts(mirror, PUBLIC, basic("bob")) == {2}, 15)
    assert counts(mirror, PRIVATE, basic("bob")) == counts(mirror, PUBLIC, basic("alice")) == {0}
    assert counts(mirror, PRIVATE) == counts(mirror, PUBLIC) == {0}
    for page in lists(mirror, basic("bob")):
        assert "alice" not in page


def test_the_list_survives_a_reload_and_is_empty_after_a_restart(
    serve: Serving, spied_token: LoggedUpstream, tmp_path: Path
) -> None:
    folder = {"CACHE_DIR": str(tmp_path / "cache")}
    with serve(**spied_token.settings, **folder) as proxy:
        pulled_by_each_worker(proxy, PUBLIC, None)
        assert wait_until(lambda: counts(proxy, PUBLIC) == {2}, 15)
        proxy.reload()
        assert counts(proxy, PUBLIC) == {2}
    with serve(**spied_token.settings, **folder) as proxy:
        assert counts(proxy, PUBLIC) == {0}


def test_a_stream_shows_pulls_of_all_workers_and_ends_at_a_reload_and_at_a_stop(
    serve: Serving, spied_token: LoggedUpstream
) -> None:
    with serve(SHUTDOWN_GRACE="30", **spied_token.settings) as proxy:
        for end in (proxy.reload, proxy.process.terminate):
            with proxy.connection_to_each_worker() as connections:
                streams = []
                for connection in connections:
                    connection.request("GET", "/pulls/events")
                    streams.append(connection.getresponse())
                pulled_by_each_worker(proxy, PUBLIC, None)
                for stream in streams:
                    assert any(PUBLIC.encode() in line for line in stream)
                end()
                began = time.monotonic()
                for stream in streams:
                    stream.read()  # returns when the stream has ended
                assert time.monotonic() - began < 10
        assert proxy.process.wait(10) == 0
