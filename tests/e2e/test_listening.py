"""The addresses on which the service listens, for each form of HOST."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.support.docker import run
from tests.e2e.support.processes import Process, free_port, running, wait_until
from tests.e2e.support.service import command, environment


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@contextmanager
def listening(folder: Path, host: str) -> Iterator[tuple[Process, int]]:
    port = free_port()
    settings = {"HOST": host, "UPSTREAM_REGISTRY": "http://127.0.0.1:9", "WORKERS": "1", "LOG_FORMAT": "text"}
    process = Process(command("serve"), folder / "log", environment(port, settings))
    with running(process, lambda: " mirrors " in process.tail(), 30):
        yield process, port


def start_line(process: Process) -> str:
    return next(line for line in process.log_lines() if " mirrors " in line)


def is_served(address: str, port: int) -> bool:
    with closing(http.client.HTTPConnection(address, port, timeout=30)) as connection:
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except ConnectionRefusedError:
            return False


@needs_ipv6
@pytest.mark.parametrize("host", ["::", "[::]", "0:0:0:0:0:0:0:0"])
def test_the_unspecified_ipv6_address_serves_ipv4_and_ipv6(tmp_path: Path, host: str) -> None:
    with listening(tmp_path, host) as (process, port):
        assert is_served("127.0.0.1", port)
        assert is_served("::1", port)
        line = start_line(process)
        assert f"on http://[{host.strip('[]')}]:{port} (IPv4 and IPv6), " in line
        assert f'["http://localhost:{port}"]' in line
        assert wait_until(lambda: sum("client=127.0.0.1 " in line for line in process.log_lines()) == 1, 10), (
            "an IPv4 client is logged with an IPv4 address"
        )


@pytest.mark.parametrize("host", ["0.0.0.0", "0"])
def test_the_unspecified_ipv4_address_serves_only_ipv4(tmp_path: Path, host: str) -> None:
    with listening(tmp_path, host) as (process, port):
        assert is_served("127.0.0.1", port)
        assert not has_ipv6() or not is_served("::1", port)
        assert f"on http://{host}:{port}" in start_line(process)
        assert f'["http://localhost:{port}"]' in start_line(process)


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_single_ipv6_address_is_the_only_one_served(tmp_path: Path, host: str) -> None:
    with listening(tmp_path, host) as (process, port):
        assert is_served("::1", port)
        assert not is_served("127.0.0.1", port)
        assert f"on http://[::1]:{port}, " in start_line(process)
        assert f'["http://[::1]:{port}"]' in start_line(process)


def test_each_address_of_a_host_name_is_served(tmp_path: Path) -> None:
    found = {entry[4][0] for entry in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    addresses = [address for address in sorted(map(str, found)) if "." in address or has_ipv6()]
    with listening(tmp_path, "localhost") as (process, port):
        for address in addresses:
            assert is_served(address, port), address
            assert address in start_line(process).partition(f":{port} (")[2].partition(")")[0]
        process.terminate()
        assert process.wait(15) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((addresses[0], port)).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "[127.0.0.1", "no.such.host.invalid"])
def test_an_unavailable_address_stops_the_start(host: str) -> None:
    settings = {"HOST": host, "UPSTREAM_REGISTRY": "http://127.0.0.1:9"}
    ended = run(command("serve"), env=environment(free_port(), settings), seconds=60)
    line = ended.output.strip().split("\n")[-1]
    assert ended.status == 2
    assert f"HOST, PORT: got {host!r}" in line


def test_a_port_in_use_for_one_address_family_stops_the_start(tmp_path: Path) -> None:
    with listening(tmp_path, "127.0.0.1") as (_, port):
        settings = {"HOST": "localhost", "UPSTREAM_REGISTRY": "http://127.0.0.1:9"}
        ended = run(command("serve"), env=environment(port, settings), seconds=60)
        assert (ended.status, "in use" in ended.output) == (2, True), ended.output
