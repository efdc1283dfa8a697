"""On SIGHUP the service reads the settings again and continues to serve."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, cached, faulty_upstream
from tests.e2e.support.plain_http import answers, send
from tests.e2e.support.processes import Process, free_port, pause, port_open, session_pids, wait_until
from tests.e2e.support.service import Proxy, Serving, command, environment
from tests.e2e.support.upstreams import basic

ALICE, BOB, CAROL = (basic(name, f"{name}-pass") for name in ("alice", "bob", "carol"))
SCOPE = "repository:e2e/cached:pull"


@pytest.fixture(scope="module")
def upstream(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, tmp_path_factory.mktemp("reload")) as running:
        yield running


class Accounts:
    """The file with the accounts."""

    def __init__(self, path: Path, *logins: str) -> None:
        self.path = path
        self.are(*logins)

    def are(self, *logins: str) -> None:
        self.path.write_text("\n".join(login.partition(" ")[2] for login in logins) + "\n")


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(tmp_path / "accounts", ALICE, BOB)


@pytest.fixture
def mirror(serve: Serving, upstream: FaultyUpstream, accounts: Accounts, tmp_path: Path) -> Iterator[Cached]:
    upstream.control()
    with cached(serve, upstream, tmp_path / "cache", ACCOUNTS_FILE=str(accounts.path)) as running:
        yield running


def statuses(proxy: Proxy, path: str, authorization: str) -> set[int]:
    """The statuses of the answers of all workers."""
    with proxy.connection_to_each_worker() as workers:
        return {send(worker, "GET", path, {"Authorization": authorization}).status for worker in workers}


def workers_of(proxy: Proxy) -> set[int]:
    with proxy.connection_to_each_worker() as connections:
        return {proxy.worker_of(connection) for connection in connections}


def test_a_reload_changes_the_accounts_and_interrupts_no_transfer(mirror: Cached, accounts: Accounts) -> None:
    proxy, upstream = mirror.proxy, mirror.upstream
    stored, filled = upstream.blob(48 * MIB), upstream.blob(16 * MIB)
    assert proxy.get(stored.path, BOB).body == stored.content
    token = "Bearer " + str(proxy.ask_token(SCOPE, ALICE).json()["token"])
    upstream.control({"path": filled.digest, "hold_after": 5 * MIB})
    with (
        proxy.open(stored.path, BOB) as slow,
        proxy.open(filled.path, BOB) as first,
        proxy.open(filled.path, ALICE) as second,
    ):
        begun = [(one, one.read(MIB), made) for one, made in ((slow, stored), (first, filled), (second, filled))]
        assert upstream.holds()
        accounts.are(ALICE, CAROL)
        said = proxy.reload()
        assert len(said) == 1, "the reload is logged once, and not by each worker"
        assert 'settings reloaded; changed: ACCOUNTS"' in said[0]
        for login, expected in ((ALICE, 200), (CAROL, 200), (BOB, 401), (token, 200)):
            assert statuses(proxy, stored.path, login) == {expected}
        with proxy.open(filled.path, CAROL) as joined:  # joins the fill that started before the reload
            begun.append((joined, joined.read(MIB), filled))
            upstream.control()
            for response, beginning, made in begun:
                assert beginning + response.read() == made.content
    assert sum(not get["range"] for get in upstream.gets(filled.path)) == 1  # others may ask for parts
    assert mirror.complaints() == []


def test_a_reload_with_invalid_settings_keeps_the_old_settings_and_logs_the_reason(
    mirror: Cached, accounts: Accounts
) -> None:
    made = mirror.upstream.blob()
    for bad, reason in ((b"not an account", "ACCOUNTS: entry 1"), (b"", "ACCOUNTS"), (b"\xff\xfe", "not UTF-8")):
        accounts.path.write_bytes(bad)
        said = mirror.proxy.reload()
        assert len(said) == 1
        assert "settings not reloaded" in said[0]
        assert reason in said[0]
        assert "not an account" not in said[0]
        assert statuses(mirror.proxy, made.path, ALICE) == {200}
    accounts.path.unlink()
    assert "cannot be read" in mirror.proxy.reload()[0]
    assert statuses(mirror.proxy, made.path, BOB) == {200}
    accounts.are(CAROL)
    assert "settings reloaded" in mirror.proxy.reload()[0]
    assert statuses(mirror.proxy, made.path, BOB) == {401}


def test_a_registry_added_to_the_settings_file_is_mirrored_after_a_reload(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    upstream.control()
    made, file = upstream.blob(), tmp_path / "mirror.toml"
    one = f'tag_ttl = 5\n[[upstreams]]\nname = "one"\nurl = "{upstream.url}"\n'
    other = f'[[upstreams]]\nname = "two"\nurl = "{upstream.url.replace("127.0.0.1", "localhost")}"\n'
    file.write_text(one)
    with serve(CONFIG=str(file)) as proxy, proxy.connection_to_each_worker() as workers:

        def found(name: str) -> set[int]:
            return {send(worker, "GET", f"/{name}{made.path}").status for worker in workers}

        assert (found("one"), found("two")) == ({200}, {404})
        file.write_text(one + other.replace("url", "uri"))
        assert "settings not reloaded, the old ones stay in force" in (said := proxy.reload()[0])
        assert "uri: is not a setting" in said
        assert (found("one"), found("two")) == ({200}, {404})
        file.write_text(one.replace("tag_ttl = 5", "tag_ttl = 6") + other)
        assert 'settings reloaded; changed: TAG_TTL, UPSTREAMS"' in proxy.reload()[0]
        assert (found("one"), found("two")) == ({200}, {200}), "open connections use the new settings, too"


def test_the_replacement_of_a_worker_killed_after_a_reload_has_the_new_settings(
    mirror: Cached, accounts: Accounts
) -> None:
    made = mirror.upstream.blob()
    token = "Bearer " + str(mirror.proxy.ask_token(SCOPE, ALICE).json()["token"])
    accounts.are(ALICE, CAROL)
    mirror.proxy.reload()
    before = workers_of(mirror.proxy)
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    assert not workers_of(mirror.proxy) & before
    for login, expected in ((CAROL, 200), (token, 200), (BOB, 401)):
        assert statuses(mirror.proxy, made.path, login) == {expected}
    accounts.are(BOB)
    mirror.proxy.reload()
    assert statuses(mirror.proxy, made.path, CAROL) == {401}
    assert statuses(mirror.proxy, made.path, BOB) == {200}


def test_the_replacement_of_a_worker_killed_during_a_reload_has_the_new_settings(
    mirror: Cached, accounts: Accounts
) -> None:
    made = mirror.upstream.blob()
    accounts.are(CAROL)
    stopped = min(workers_of(mirror.proxy))
    pause(stopped)
    since = mirror.proxy.process.mark()
    os.kill(mirror.proxy.process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert not any("settings reloaded" in line for line in mirror.proxy.process.log_lines(since)), (
        "the reload must wait for all workers"
    )
    os.kill(stopped, signal.SIGKILL)
    assert wait_until(lambda: any("settings reloaded; c" in line for line in mirror.proxy.process.log_lines(since)), 15)
    assert statuses(mirror.proxy, made.path, CAROL) == {200}
    assert statuses(mirror.proxy, made.path, ALICE) == {401}


def test_the_settings_of_the_last_of_several_reloads_are_in_force(mirror: Cached, accounts: Accounts) -> None:
    made = mirror.upstream.blob()
    dice = random.Random(7)  # noqa: S311 - moments, no secret
    for _ in range(30):
        accounts.are(*dice.sample((ALICE, BOB, CAROL), 2))
        os.kill(mirror.proxy.process.pid, signal.SIGHUP)
        time.sleep(dice.random() / 20)
    accounts.are(CAROL)
    os.kill(mirror.proxy.process.pid, signal.SIGHUP)
    assert wait_until(lambda: statuses(mirror.proxy, made.path, ALICE) == {401}, 15)
    mirror.proxy.process.settled_lines()
    assert statuses(mirror.proxy, made.path, CAROL) == {200}
    assert statuses(mirror.proxy, made.path, BOB) == {401}


def test_reloads_leak_no_open_files_and_no_threads(mirror: Cached) -> None:
    made = mirror.upstream.blob()
    workers = workers_of(mirror.proxy)

    def held() -> dict[int, tuple[int, int]]:
        assert statuses(mirror.proxy, made.path, ALICE) == {200}  # each worker has used all its components
        return {worker: (_count(worker, "fd"), _count(worker, "task")) for worker in workers}

    mirror.proxy.reload()
    before = held()
    for _ in range(20):
        mirror.proxy.reload()
        held()
    end = time.monotonic() + 15
    while any(now > 3 + then for worker in workers for now, then in zip(held()[worker], before[worker], strict=True)):
        assert time.monotonic() < end, (before, held())
        time.sleep(0.2)
    assert _count(mirror.proxy.process.pid, "fd") < 40


def _count(pid: int, what: str) -> int:
    return len(list(Path(f"/proc/{pid}/{what}").iterdir()))


def test_sigterm_after_a_reload_lets_older_and_newer_transfers_finish(mirror: Cached) -> None:
    made = mirror.upstream.blob(48 * MIB)
    assert mirror.proxy.get(made.path, ALICE).status == 200
    with mirror.proxy.open(made.path, ALICE) as before:
        beginning = before.read(MIB)
        mirror.proxy.reload()
        with mirror.proxy.open(made.path, ALICE) as after:
            other = after.read(MIB)
            mirror.proxy.process.terminate()
            time.sleep(0.5)
            os.kill(mirror.proxy.process.pid, signal.SIGHUP)  # must be ignored during the stop
            time.sleep(0.5)
            assert mirror.proxy.process.returncode is None, "the service must wait for the transfers"
            assert beginning + before.read() == made.content
            assert other + after.read() == made.content
    assert mirror.proxy.process.wait(10) == 0
    assert not port_open(mirror.proxy.port)


def test_sighup_during_the_start_causes_a_reload(upstream: FaultyUpstream, tmp_path: Path) -> None:
    upstream.control()
    port = free_port()
    process = Process(command("serve"), tmp_path / "log", environment(port, {"UPSTREAM_REGISTRY": upstream.url}))
    try:
        # SIGHUP stops the Python interpreter until the first line of the service has run.
        assert wait_until(lambda: _holds_hang_up(process.pid), 20, 0.001)
        assert not port_open(port)
        while not answers(f"http://127.0.0.1:{port}/livez"):
            assert process.returncode is None, process.tail()
            os.kill(process.pid, signal.SIGHUP)
            time.sleep(0.02)
        assert wait_until(lambda: "settings reloaded; changed: none" in process.tail(), 10)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()


def _holds_hang_up(pid: int) -> bool:
    state = Path(f"/proc/{pid}/status").read_text()
    return bool(int(state.partition("SigBlk:")[2].split()[0], 16) & 1 << signal.SIGHUP - 1)


def test_sighup_to_every_process_of_the_service_stops_no_process(mirror: Cached) -> None:
    pids = session_pids(mirror.proxy.process.pid)
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
    assert wait_until(lambda: "settings reloaded" in mirror.proxy.process.tail(), 10)
    assert session_pids(mirror.proxy.process.pid) == pids
