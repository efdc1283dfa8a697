"""Which connection is closed, and when."""

import pytest

from entrypoints.http.connection.connection_table import (
    CLOSING_SECONDS,
    PROTECTED_SECONDS,
    Connection,
    ConnectionLimits,
    ConnectionState,
    ConnectionTable,
)

WAITING, IDLE, BUSY = ConnectionState.WAITING, ConnectionState.IDLE, ConnectionState.BUSY
TIMEOUT = 30.0
FEW = 4


class Worker:
    """A table with connections that note what became of them, and a clock that a test moves."""

    def __init__(self, connections: int = 100, waiting: int = FEW) -> None:
        self.now = 1000.0
        self.limits = ConnectionLimits(TIMEOUT, connections, waiting)
        self.table = ConnectionTable(lambda: self.limits, lambda: self.now)
        self.events: list[str] = []

    def open(self, name: str, address: str | None = "192.0.2.1") -> Connection:
        connection = self.table.open(address, lambda: self.events.append(f"{name} aborted"))
        connection.expire = lambda: self.events.append(f"{name} expired")
        return connection

    def check(self, after: float) -> list[str]:
        """The events of a check after so many seconds."""
        self.now += after
        self.events.clear()
        self.table.check()
        return list(self.events)


def test_time_runs_from_the_beginning_however_often_bytes_come() -> None:
    worker = Worker()
    connection = worker.open("a")
    for _ in range(3):
        assert worker.check(TIMEOUT / 4) == []
        connection.enter(WAITING)
    assert worker.check(TIMEOUT / 4) == ["a expired"]


def test_head_and_body_have_the_time_each() -> None:
    worker = Worker()
    connection = worker.open("a")
    assert worker.check(TIMEOUT - 1) == []
    connection.enter(BUSY)
    connection.enter(WAITING)
    assert worker.check(TIMEOUT - 1) == []
    assert worker.check(1) == ["a expired"]


def test_the_timeout_does_not_apply_to_idle_and_busy_connections() -> None:
    worker = Worker()
    busy, idle = worker.open("busy"), worker.open("idle")
    busy.enter(BUSY)
    idle.enter(BUSY)
    idle.enter(IDLE)
    assert worker.check(100 * TIMEOUT) == []


def test_a_connection_that_does_not_close_is_aborted() -> None:
    worker = Worker()
    connection = worker.open("a")
    worker.check(TIMEOUT)
    for late in (WAITING, BUSY, IDLE):
        connection.enter(late)  # the response that says that it was too late makes the connection no younger
    assert worker.check(CLOSING_SECONDS - 1) == []
    assert worker.check(1) == ["a aborted"]
    connection.closed()
    assert worker.check(CLOSING_SECONDS) == []


def test_the_oldest_of_an_address_that_has_too_many_are_closed() -> None:
    worker = Worker()
    for number in range(FEW + 2):
        worker.open(str(number))
        worker.open(f"other {number}", "192.0.2.2" if number % 2 else "192.0.2.3")
    assert worker.check(PROTECTED_SECONDS / 2) == [], "those that have just come may be about to send"
    assert worker.check(PROTECTED_SECONDS) == ["0 aborted", "1 aborted"]
    assert worker.check(0) == []


def test_only_connections_that_wait_count_for_an_address() -> None:
    worker = Worker()
    for number in range(3 * FEW):
        connection = worker.open(str(number))
        connection.enter(BUSY)
        if number % 2:
            connection.enter(IDLE)
    waiting = [worker.open(f"waiting {number}") for number in range(FEW)]
    assert worker.check(PROTECTED_SECONDS) == []
    waiting[0].closed()
    worker.open("one for it")
    assert worker.check(PROTECTED_SECONDS) == []


def test_connections_without_an_address_are_not_bounded_by_it() -> None:
    worker = Worker()
    for number in range(3 * FEW):
        worker.open(str(number), None)
    assert worker.check(PROTECTED_SECONDS) == []


@pytest.mark.parametrize("kept", ["over", "idle", "old", "nothing"])
def test_the_connection_that_is_closed_to_make_room(kept: str) -> None:
    worker = Worker(connections=1)
    if kept == "over":
        for number in range(FEW + 1):
            worker.open(f"over {number}")
    old = worker.open("old", None)
    if kept in {"over", "idle"}:
        for name in ("idle", "later idle"):
            idle = worker.open(name, None)
            idle.enter(BUSY)
            idle.enter(IDLE)
    if kept == "nothing":
        old.enter(BUSY)
    assert worker.table.is_full
    if kept != "over":
        worker.now += PROTECTED_SECONDS
    worker.open("young", None)
    assert worker.table.make_room() is (kept != "nothing")
    assert worker.events == {
        "over": ["over 0 aborted"], "idle": ["idle aborted"], "old": ["old aborted"], "nothing": []
    }[kept]  # fmt: skip


def test_the_end_of_a_connection_is_reported_once() -> None:
    worker = Worker()
    ended: list[int] = []
    worker.table.closed = lambda: ended.append(len(worker.table))
    first, _ = worker.open("a"), worker.open("b")
    first.closed()
    first.closed()
    assert ended == [1]
