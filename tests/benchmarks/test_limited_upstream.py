"""The relay in front of the upstream limits the rate from the first byte and counts what it has passed on."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from benchmarks import limited, limited_relay
from tests.e2e.support.processes import Process, free_port, port_open, running

PROGRAM = str(Path(limited_relay.__file__))
ANSWER = 1 << 20
WHOLE = b"G"  # a request for this many bytes
RATE = 2_000_000


@pytest.fixture
def giver() -> Iterator[int]:
    """A server that sends ANSWER bytes for each byte that it receives."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(1):
                connection.sendall(bytes(ANSWER))

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def relayed(folder: Path, giver: int, *limit: str) -> Iterator[limited.Line]:
    port = free_port()
    process = Process([sys.executable, PROGRAM, str(port), str(giver), *limit], folder / "relay.log")
    with running(process, lambda: port_open(port)):
        yield limited.Line(process, port)


def receive(port: int, answers: int) -> float:
    """Request this number of answers on one connection, one after another. Returns the seconds."""
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        began = time.perf_counter()
        for _ in range(answers):
            connection.sendall(WHOLE)
            left = ANSWER
            while left:
                count = len(connection.recv(left))
                assert count
                left -= count
        return time.perf_counter() - began


@pytest.mark.slow
def test_each_connection_has_its_rate_from_the_first_answer_on(tmp_path: Path, giver: int) -> None:
    with relayed(tmp_path, giver, "--each", str(RATE)) as line, ThreadPoolExecutor(2) as pool:
        seconds = list(pool.map(lambda _: receive(line.port, 2), range(2)))
        usage = line.usage()
    for one in seconds:
        assert 0.95 * 2 * ANSWER / RATE < one < 4 * 2 * ANSWER / RATE
    assert usage == limited.Usage(4 * ANSWER, 2, 2)


@pytest.mark.slow
def test_connections_share_the_rate_of_a_line_equally(tmp_path: Path, giver: int) -> None:
    with relayed(tmp_path, giver, "--in-all", str(RATE)) as line, ThreadPoolExecutor(2) as pool:
        seconds = list(pool.map(lambda _: receive(line.port, 1), range(2)))
        assert line.usage().bytes == 2 * ANSWER
    # With equal shares both end at about the same time, that of both answers together.
    assert min(seconds) > 0.8 * 2 * ANSWER / RATE


def test_usage_has_the_bytes_of_all_connections_and_the_connections_of_the_last_second() -> None:
    few, many = limited._IN_USE - 1, limited._IN_USE
    lines = [
        f'{{"at": 10.0, "sent": {{"1": {few}}}}}',
        f'{{"at": 10.1, "sent": {{"1": {many}, "2": {many}, "3": {many}}}}}',
        "a message that is not JSON",
        f'{{"at": 12.1, "sent": {{"1": {many}, "2": {few}}}}}',
        f'{{"at": 12.9, "sent": {{"1": {many}, "2": {many}}}}}',
    ]
    assert limited.usage_of(lines) == limited.Usage(6 * many + 2 * few, 3, 2)


def test_a_line_that_was_not_used_has_sent_nothing() -> None:
    assert limited.usage_of([]) == limited.Usage(0, 0, 0)
