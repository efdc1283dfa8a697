"""Several ranges of one blob in one request: cold and warm, with and without TLS, and with a limit of one connection to
the upstream.
"""

import contextlib
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, FaultyUpstream, Made, faulty_upstream
from tests.e2e.support.certificates import PrivateAuthority
from tests.e2e.support.plain_http import UpstreamResponse, answers, connect, fetch, send
from tests.e2e.support.processes import Process, free_port, program, running
from tests.e2e.support.service import Serving, command, environment

SIZE = 4 * MIB
SPANS = [(3 * MIB, 3 * MIB + 100_000), (0, 10), (20, 30), (MIB, MIB + 200_000), (SIZE - 5, SIZE)]
RANGES = ",".join(f"{start}-{stop - 1}" for start, stop in SPANS)
ONE_CONNECTION = {"UPSTREAM_MAX_CONNECTIONS": "1"}
BOUNDS = pytest.mark.parametrize("bound", [{}, ONE_CONNECTION], ids=["unbounded", "one connection"])


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(tmp_path, tmp_path / "files") as running_one:
        yield running_one


@contextmanager
def mirror(
    folder: Path, upstream: FaultyUpstream, authority: PrivateAuthority | None, settings: dict[str, str]
) -> Iterator[tuple[str, ssl.SSLContext | None]]:
    """The address of the mirror. It uses TLS if there is an authority."""
    port = free_port()
    settings = {"UPSTREAM_REGISTRY": upstream.url, "CACHE_DIR": str(folder / "cache"), "WORKERS": "1", **settings}
    tls, scheme = None, "http"
    if authority:
        settings |= {"TLS_CERT": str(authority.server.certificate), "TLS_KEY": str(authority.server.key)}
        tls, scheme = ssl.create_default_context(cafile=str(authority.certificate)), "https"
    (folder / "cache").mkdir()
    url = f"{scheme}://127.0.0.1:{port}"
    process = Process(command("serve"), folder / "mirror.log", environment(port, settings))
    with running(process, lambda: answers(f"{url}/readyz", tls=tls), 30):
        yield url, tls
    assert not [line for line in process.log_lines() if "Traceback" in line]


def parts_of(answer: UpstreamResponse) -> list[tuple[str, bytes]]:
    """Content-Range and the bytes of each part (RFC 2046 section 5.1.1)."""
    kind, _, boundary = answer.headers["Content-Type"].partition("; boundary=")
    assert (answer.status, kind) == (206, "multipart/byteranges")
    preamble, *parts, end = answer.body.split(f"\r\n--{boundary}".encode())
    assert (preamble, end) == (b"", b"--\r\n")
    heads = [part.partition(b"\r\n\r\n") for part in parts]
    return [(re.findall(r"Content-Range: (.*?)\r?$", head.decode(), re.MULTILINE)[0], data) for head, _, data in heads]


def expected(blob: Made) -> list[tuple[str, bytes]]:
    return [(f"bytes {start}-{stop - 1}/{SIZE}", blob.content[start:stop]) for start, stop in SPANS]


def gives_parts(url: str, blob: Made, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the parts are correct, and another request over the same connection is answered."""
    with contextlib.closing(connect(url, tls, timeout=20)) as connection:
        answer = send(connection, "GET", blob.path, {"Range": f"bytes={RANGES}"})
        return parts_of(answer) == expected(blob) and send(connection, "GET", "/livez").status == 200


@BOUNDS
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_several_ranges_are_served_completely_cold_and_warm(
    upstream: FaultyUpstream, authority: PrivateAuthority, tmp_path: Path, *, secure: bool, bound: dict[str, str]
) -> None:
    blob = upstream.blob(SIZE)
    with mirror(tmp_path, upstream, authority if secure else None, bound) as (url, tls):
        assert gives_parts(url, blob, tls)
        assert not upstream.gets(blob.path)[0]["range"].endswith("-"), "the upstream was asked only for the ranges"
        assert fetch("GET", url + blob.path, tls=tls).body == blob.content
        mark = upstream.mark()
        assert gives_parts(url, blob, tls)
        assert not [entry for entry in upstream.gets(blob.path, mark) if entry["range"]]


@BOUNDS
@pytest.mark.parametrize("field", [f"bytes={RANGES}", "bytes=100-299999", "bytes=-5000", None], ids=str)
def test_a_response_that_the_upstream_breaks_off_is_resumed(
    upstream: FaultyUpstream, tmp_path: Path, bound: dict[str, str], field: str | None
) -> None:
    """Without a cache, the request for the rest must not wait for the connection of the broken response."""
    blob = upstream.blob(SIZE)
    with mirror(tmp_path, upstream, None, {"CACHE_DIR": "off", **bound}) as (url, _):
        upstream.control({"path": "/blobs/", "cut_after": 1000, "times": 3})
        with contextlib.closing(connect(url, timeout=30)) as connection:
            answer = send(connection, "GET", blob.path, {"Range": field} if field else {})
        if field and "," in field:
            assert parts_of(answer) == expected(blob)
        else:
            start, stop = {"bytes=100-299999": (100, 300_000), "bytes=-5000": (SIZE - 5000, SIZE)}.get(
                field or "", (0, SIZE)
            )
            assert answer.body == blob.content[start:stop]


@pytest.mark.skipif(program("curl") is None, reason="curl is not installed")
def test_curl_gets_several_ranges(serve: Serving, upstream: FaultyUpstream) -> None:
    blob = upstream.blob(SIZE)
    with serve(UPSTREAM_REGISTRY=upstream.url) as proxy:
        for _ in range(2):
            command_line = ["curl", "-sSf", "-r", RANGES, "-D", "-", proxy.url + blob.path]
            done = subprocess.run(command_line, capture_output=True, timeout=30, check=True)
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 206")
            assert all(data in body for _, data in expected(blob))
            proxy.get(blob.path)
