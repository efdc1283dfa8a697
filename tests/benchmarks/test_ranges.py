"""The ranges that the benchmark reads, and the check of what a server sends for them."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from benchmarks.contenders import Server
from benchmarks.downloads import BadAnswerError
from benchmarks.plan import FULL, KIB, MIB
from benchmarks.ranges import SPOT, pieces, pieces_case, read_ranges, spots, spots_case
from benchmarks.results import NGINX
from tests.e2e.support.processes import Process
from tests.entrypoints.plain_server import answering

CONTENT = bytes(range(256)) * 40
RANGES = [(0, 100), (1000, 3001), (len(CONTENT) - 1, len(CONTENT))]


class Giver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = (int(number) for number in re.findall(r"\d+", self.headers["Range"]))
        status, body = {
            "/right": (206, CONTENT[first : last + 1]),
            "/whole": (200, CONTENT),
            "/wrong": (206, CONTENT[first + 1 : last + 2]),
            "/refused": (416, b""),
        }[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Giver) as giver:
        giver.daemon_threads = True
        giver.block_on_close = False
        with answering(giver):
            yield Server(NGINX, cast("Process", None), giver.server_address[1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "content"
    file.write_bytes(CONTENT)
    return file


@pytest.mark.parametrize("path", ["/right", "/whole"])
def test_the_ranges_of_a_partial_or_a_whole_response_are_accepted(server: Server, file: Path, path: str) -> None:
    read_ranges(server, path, RANGES, file)


@pytest.mark.parametrize(("path", "message"), [("/wrong", "wrong bytes for 0-99"), ("/refused", "status 416")])
def test_other_bytes_and_other_statuses_are_errors(server: Server, file: Path, path: str, message: str) -> None:
    with pytest.raises(BadAnswerError, match=message):
        read_ranges(server, path, RANGES, file)


def test_pieces_cover_the_blob_once() -> None:
    assert pieces(10, 4) == [(0, 4), (4, 8), (8, 10)]


def test_spots_are_spread_over_the_blob() -> None:
    found = spots(200 * MIB, 200)
    assert (found[:2], found[-1]) == ([(0, SPOT), (MIB, MIB + SPOT)], (199 * MIB, 199 * MIB + 64 * KIB))


def test_cases_name_the_blob_the_clients_and_the_ranges() -> None:
    assert pieces_case(FULL) == "96 MiB, 4 clients, in ranges of 8 MiB"
    assert spots_case(FULL, 1) == "200 MiB, 1 client, 200 ranges of 64 KiB"
