"""Accounts from an htpasswd file that changes while the service runs, and the delay of clients that guess passwords."""

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.support.plain_http import UpstreamResponse, send
from tests.e2e.support.processes import program, wait_until
from tests.e2e.support.service import SECRET, Proxy, serving
from tests.e2e.support.upstreams import PRIVATE, LoggedUpstream, account_entry, basic
from tests.fakes.htpasswd import hashed, write

pytestmark = pytest.mark.real("docker-registry")

PULL = f"repository:{PRIVATE}:pull"
TAGS = f"/v2/{PRIVATE}/tags/list"
COST = 10  # some 50 ms for each login; `htpasswd` takes 5 by default


class Service:
    """The service and the file with its accounts."""

    def __init__(self, proxy: Proxy, file: Path) -> None:
        self.proxy, self.file = proxy, file

    def everywhere(self, authorization: str) -> list[int]:
        """The status of the answer of each worker."""
        with self.proxy.connection_to_each_worker() as connections:
            return [send(one, "GET", TAGS, {"Authorization": authorization}).status for one in connections]

    def lines(self) -> list[str]:
        return self.proxy.process.settled_lines(0)


def entries(*accounts: tuple[str, str]) -> str:
    """Lines of an htpasswd file, made by Apache's `htpasswd` if it is installed."""
    tool = program("htpasswd")
    if tool is None:
        return "".join(f"{user}:{hashed(password, COST)}\n" for user, password in accounts)
    made = [
        subprocess.run([tool, "-nbB", "-C", str(COST), *account], capture_output=True, text=True, check=True).stdout
        for account in accounts
    ]
    return "".join(made)


@pytest.fixture
def service(workplace: Path, spied_open: LoggedUpstream, tmp_path: Path) -> Iterator[Service]:
    write(file := tmp_path / "htpasswd", "# who may pull\n\n" + entries(("carol", "carol-pass"), ("dave", "dave-pass")))
    settings = {**spied_open.settings, "SERVER_SECRET": SECRET, "TRUSTED_PROXIES": "127.0.0.1"}
    with serving(workplace, **settings, HTPASSWD_FILE=str(file), ACCOUNTS=account_entry("alice")) as proxy:
        yield Service(proxy, file)


def test_each_worker_accepts_accounts_of_the_file_and_of_the_setting(service: Service) -> None:
    for login in (basic("carol", "carol-pass"), basic("dave", "dave-pass"), basic("alice")):
        token = service.proxy.ask_token(PULL, login)
        assert token.status == 200, token.body
        assert service.everywhere(login) == [200, 200]
        assert service.everywhere(f"Bearer {token.json()['token']}") == [200, 200]
    for login in (basic("carol", "dave-pass"), basic("alice", "carol-pass"), basic("mallory", "carol-pass")):
        assert service.proxy.ask_token(PULL, login).status == 401
        assert service.everywhere(login) == [401, 401]


def test_a_repeated_login_is_not_hashed_again(service: Service) -> None:
    login = basic("carol", "carol-pass")
    service.everywhere(login)
    with service.proxy.connection_to_each_worker() as connections:
        before = service.proxy.process.cpu_seconds()
        for _ in range(100):
            assert send(connections[0], "GET", "/v2/auth", {"Authorization": login}).status == 200
        assert (service.proxy.process.cpu_seconds() - before) / 100 < 0.02


def test_changes_of_the_htpasswd_file_take_effect_while_the_service_runs(service: Service) -> None:
    daves = f"Bearer {service.proxy.ask_token(PULL, basic('dave', 'dave-pass')).json()['token']}"
    carols = f"Bearer {service.proxy.ask_token(PULL, basic('carol', 'carol-pass')).json()['token']}"
    assert service.everywhere(daves) == service.everywhere(basic("dave", "dave-pass")) == [200, 200]
    # The line of carol stays unchanged, because a new salt counts as a new password.
    kept = next(line for line in service.file.read_text().splitlines() if line.startswith("carol:"))
    write(service.file, f"{kept}\n" + entries(("erin", "erin-pass")))
    assert wait_until(lambda: service.everywhere(daves) == [401, 401], 10)
    assert service.everywhere(basic("dave", "dave-pass")) == [401, 401]
    assert service.everywhere(carols) == service.everywhere(basic("erin", "erin-pass")) == [200, 200]
    token = service.proxy.ask_token(PULL, basic("erin", "erin-pass")).json()["token"]
    assert service.everywhere(f"Bearer {token}") == [200, 200]


def test_an_invalid_file_keeps_the_previous_accounts_and_each_worker_logs_it_once(service: Service) -> None:
    write(service.file, entries(("erin", "erin-pass")) + "frank:hunter2\n")

    def refusals() -> list[str]:
        return [line for line in service.lines() if "the previous accounts stay in force" in line]

    assert wait_until(
        lambda: service.everywhere(basic("carol", "carol-pass")) == [200, 200] and len(refusals()) == 2, 10
    )
    time.sleep(1.2)
    assert service.everywhere(basic("carol", "carol-pass")) == [200, 200]
    assert service.everywhere(basic("erin", "erin-pass")) == [401, 401]
    assert len(refusals()) == 2
    assert all(f"{service.file}: line 2 does not contain a bcrypt hash" in line for line in refusals())
    assert "hunter2" not in "".join(service.lines())


def guess(service: Service, number: int, address: str) -> UpstreamResponse:
    with service.proxy.connection_to_each_worker() as connections:
        first = min(connections, key=service.proxy.worker_of)  # each worker counts for itself
        headers = {"Authorization": basic("carol", f"guess-{number}"), "X-Forwarded-For": address}
        return send(first, "GET", "/v2/auth", headers)


def slowed(service: Service, address: str) -> list[str]:
    """The log lines about delayed attempts of this address. Each is written before the answer to the attempt."""
    return [line for line in service.proxy.process.log_lines() if f"from {address} waits" in line]


def test_only_the_address_that_guesses_passwords_is_delayed(service: Service) -> None:
    carol = basic("carol", "carol-pass")
    assert service.everywhere(carol) == [200, 200]
    began = []
    for number in range(5):
        began.append(time.monotonic())
        assert guess(service, number, "192.0.2.66").status == 401
        if number < 3:
            assert not slowed(service, "192.0.2.66")
    # The pauses before the last two, from the end of the third: 1 s and 2 s.
    assert time.monotonic() - began[2] > 3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: guess(service, number, "192.0.2.66"), range(5, 13)))
    assert {answer.status for answer in answers} == {401, 429}
    refused = [answer for answer in answers if answer.status == 429]
    assert all(answer.error_codes() == ["TOOMANYREQUESTS"] for answer in refused)
    # An attempt that has waited before it is refused gets a shorter Retry-After than one that is refused at once.
    waits = [int(answer.headers["Retry-After"]) for answer in refused]
    assert max(waits) > 10, waits
    assert all(0 < seconds <= 40 for seconds in waits), waits
    assert service.everywhere(carol) == [200, 200]
    assert guess(service, 1, "192.0.2.67").status == 401
    assert not slowed(service, "192.0.2.67")
    assert not slowed(service, "127.0.0.1")
    log = "".join(service.lines())
    assert re.search("login of account carol from 192.0.2.66 delayed by [12] s", log)
    assert "guess-" not in log
    page = service.proxy.get("/metrics").body.decode()
    counted = dict(line.split() for line in page.splitlines() if line and not line.startswith("#"))
    assert float(counted["docker_image_proxy_logins_slowed_total"]) >= 3
    assert float(counted["docker_image_proxy_logins_turned_away_total"]) == len(refused)


def test_the_service_stops_while_login_attempts_are_delayed(service: Service) -> None:
    for number in range(5):
        guess(service, number, "192.0.2.66")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(guess, service, number, "192.0.2.66") for number in (5, 6)]
        time.sleep(0.5)
        service.proxy.process.stop()
        for one in waiting:
            one.exception(timeout=40)
    assert "Traceback" not in "".join(service.lines())
    assert "Task was destroyed" not in "".join(service.lines())
