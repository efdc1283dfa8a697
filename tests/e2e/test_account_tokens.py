"""A changed password invalidates the tokens of the account: in each worker, after a reload and after a restart."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support.plain_http import send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import SECRET, Proxy, Serving
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, LoggedUpstream, TokenUpstream
from tests.fakes.htpasswd import lines_of, write

pytestmark = pytest.mark.real("docker-registry")

MANIFEST = f"/v2/{PRIVATE}/manifests/1"
PULL = f"repository:{PRIVATE}:pull"
KEEPER = ("bob", "bob-pass")
"""An account that never changes: the service does not start with an empty list of accounts."""
KEEPERS_LINE = lines_of(dict([KEEPER]))


@dataclass
class Accounts:
    """The file with the accounts of the service, in one of the two formats."""

    setting: str
    path: Path

    def are(self, *logins: tuple[str, str]) -> None:
        if self.setting == "HTPASSWD_FILE":
            write(self.path, lines_of(dict(logins)) + KEEPERS_LINE)
        else:
            pairs = (f"{user}:{password}" for user, password in (*logins, KEEPER))
            write(self.path, "\n".join(base64.b64encode(pair.encode()).decode() for pair in pairs) + "\n")

    @property
    def settings(self) -> dict[str, str]:
        return {self.setting: str(self.path), "SERVER_SECRET": SECRET}


@pytest.fixture(params=["ACCOUNTS_FILE", "HTPASSWD_FILE"])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Accounts:
    made = Accounts(request.param, tmp_path / "accounts")
    made.are(("alice", "alice-pass"))
    return made


@pytest.fixture(params=["own token", "countersigned token"])
def upstream(request: pytest.FixtureRequest) -> Any:
    """Row 6 of the trust table, and row 7."""
    name = "spied_open" if request.param == "own token" else "token_registry"
    return request.getfixturevalue(name)


def statuses(proxy: Proxy, token: str, path: str = MANIFEST) -> set[int]:
    """The statuses of two answers of each worker. The second answer may come from the cache."""
    with proxy.connection_to_each_worker() as workers:
        asked = [send(worker, "GET", path, {"Authorization": token}) for worker in workers * 2]
        refused = [answer for answer in asked if answer.status == 401]
        assert all('error="invalid_token"' in answer.headers["WWW-Authenticate"] for answer in refused)
        return {answer.status for answer in asked}


def token_of_alice(proxy: Proxy) -> str:
    token = f"Bearer {proxy.token(PULL, 'alice')}"
    assert statuses(proxy, token) == {200}
    return token


def test_a_reload_with_a_changed_password_invalidates_the_tokens_of_the_account(
    serve: Serving, upstream: LoggedUpstream | TokenUpstream, accounts: Accounts
) -> None:
    with serve(**upstream.settings, **accounts.settings) as proxy:
        token, bobs = token_of_alice(proxy), f"Bearer {proxy.token(f'repository:{PUBLIC}:pull', 'bob')}"
        proxy.reload()
        assert statuses(proxy, token) == {200}, "a reload that changes nothing ends no token"
        accounts.are(("alice", "another"))
        proxy.reload()
        assert statuses(proxy, token) == {401}
        assert statuses(proxy, bobs, f"/v2/{PUBLIC}/manifests/1") == {200}, "the token of another account stays valid"


def test_tokens_of_a_deleted_account_stay_invalid_when_the_name_is_used_again(
    serve: Serving, upstream: LoggedUpstream | TokenUpstream, accounts: Accounts
) -> None:
    with serve(**upstream.settings, **accounts.settings) as proxy:
        token = token_of_alice(proxy)
        accounts.are()
        proxy.reload()
        assert statuses(proxy, token) == {401}
        accounts.are(("alice", "somebody-else"))
        proxy.reload()
        assert statuses(proxy, token) == {401}


def test_a_restart_with_a_changed_password_invalidates_the_tokens_of_the_account(
    serve: Serving, upstream: LoggedUpstream | TokenUpstream, accounts: Accounts
) -> None:
    with serve(**upstream.settings, **accounts.settings) as proxy:
        token = token_of_alice(proxy)
    with serve(**upstream.settings, **accounts.settings) as proxy:
        assert statuses(proxy, token) == {200}, "with a fixed SERVER_SECRET a restart alone ends no token"
    accounts.are(("alice", "another"))
    with serve(**upstream.settings, **accounts.settings) as proxy:
        assert statuses(proxy, token) == {401}


@pytest.mark.parametrize("password", ["another", "alice-pass"], ids=["another password", "the same with a new salt"])
def test_a_changed_htpasswd_file_invalidates_tokens_without_a_reload(
    serve: Serving, upstream: LoggedUpstream | TokenUpstream, tmp_path: Path, password: str
) -> None:
    accounts = Accounts("HTPASSWD_FILE", tmp_path / "accounts")
    accounts.are(("alice", "alice-pass"))
    with serve(**upstream.settings, **accounts.settings) as proxy:
        token = token_of_alice(proxy)
        accounts.are(("alice", password))
        assert wait_until(lambda: statuses(proxy, token) == {401}, 20)
