"""A mirror with limits for its upstream: requests of disconnected clients do not delay other clients."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import NAME, faulty_upstream
from tests.e2e.support.images import MANIFEST_TYPES, make_image
from tests.e2e.support.service import Serving

REQUESTS, RATE = 400, 20
WHOLE_QUEUE = REQUESTS / RATE
"""Seconds that the upstream would need for all requests."""


@contextmanager
def many(port: int, paths: list[str], address: str) -> Iterator[None]:
    """Send each request over its own connection, read no answer, and close all connections at the end."""
    with ExitStack() as stack:
        for path in paths:
            connection = socket.create_connection(("127.0.0.1", port), 10, (address, 0))
            stack.enter_context(connection)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        yield


def get(port: int, path: str, address: str) -> tuple[int, dict[str, str], float]:
    """Status, headers in lower case and seconds."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 60, (address, 0)) as connection:
        accept = ", ".join(MANIFEST_TYPES)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while piece := connection.recv(65536):
            answer += piece
    head = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return int(head[0].split(" ")[1]), headers, time.monotonic() - began


@pytest.mark.parametrize("kind", ["blobs", "manifests"])
@pytest.mark.parametrize("bound", [{"UPSTREAM_MAX_RATE": str(RATE)}, {"UPSTREAM_MAX_CONNECTIONS": "1"}], ids=str)
def test_requests_of_disconnected_clients_do_not_delay_other_clients(
    serve: Serving, tmp_path: Path, bound: dict[str, str], kind: str
) -> None:
    image, other = make_image("queue-known", [1000]), make_image("queue-unknown", [1000])
    settings = {"CACHE_DIR": str(tmp_path / "cache"), "WORKERS": "1", "TAG_TTL": "1", "GRANT_TTL": "1", **bound}
    with faulty_upstream(tmp_path, tmp_path / "files") as upstream:
        upstream.push(image, "known")
        upstream.push(other, "unknown")
        upstream.tag(known=image.manifest.digest, unknown=other.manifest.digest)
        with serve(UPSTREAM_REGISTRY=upstream.url, **settings) as proxy:
            assert get(proxy.port, f"/v2/{NAME}/manifests/known", "127.0.0.3")[0] == 200
            time.sleep(1.5)
            if "UPSTREAM_MAX_CONNECTIONS" in bound:
                upstream.control({"path": "/(sha256:0|tag-)", "methods": ["GET", "HEAD"], "delay": 1 / RATE})
            names = [f"sha256:{number:064x}" if kind == "blobs" else f"tag-{number}" for number in range(REQUESTS)]
            with many(proxy.port, [f"/v2/{NAME}/{kind}/{name}" for name in names], "127.0.0.2"):
                time.sleep(1)
                during = get(proxy.port, f"/v2/{NAME}/manifests/known", "127.0.0.3")
            after = [get(proxy.port, f"/v2/{NAME}/manifests/{tag}", "127.0.0.3") for tag in ("known", "unknown")]
            ready = get(proxy.port, "/readyz", "127.0.0.3")
            for status, headers, seconds in (during, *after, ready):
                assert status == 200
                assert "warning" not in headers
                assert seconds < WHOLE_QUEUE / 3
            time.sleep(1.5)
            since = len(upstream.log())
            time.sleep(1)
            assert len(upstream.log()) - since < RATE / 2, (
                "requests of disconnected clients are not sent upstream any more"
            )
