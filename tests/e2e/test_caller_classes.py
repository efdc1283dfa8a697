"""A repository became private: whatever fails, an anonymous client gets no content that only a login was given."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.support.cached_mirror import Cached, FaultyUpstream, cached, faulty_upstream, settle
from tests.e2e.support.images import MANIFEST_TYPES, Image, make_image
from tests.e2e.support.machines import MACHINES, lose_index, on
from tests.e2e.support.plain_http import send
from tests.e2e.support.service import Serving

ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
OWNER = "Bearer the-owners-token"
REPOSITORY = "/v2/team/app"


@dataclass(frozen=True)
class Service:
    """The mirror has given `public` to an anonymous client, and then `secret` only to the owner."""

    mirror: Cached
    upstream: FaultyUpstream
    public: Image
    secret: Image

    def paths(self, image: Image, tag: str) -> dict[str, bytes]:
        found = {f"{REPOSITORY}/manifests/{ref}": image.manifest.content for ref in (tag, image.manifest.digest)}
        return found | {f"{REPOSITORY}/blobs/{blob.digest}": blob.content for blob in image.blobs}

    def assert_secret_is_kept(self) -> None:
        with self.mirror.proxy.connection_to_each_worker() as connections:
            for connection in connections:
                for path, content in self.paths(self.secret, "secret").items():
                    for method in ("GET", "HEAD"):
                        answer = send(connection, method, path, ACCEPT)
                        assert answer.status >= 400, (method, path, answer.status)
                        assert content not in answer.body


@contextmanager
def turned(serve: Serving, folder: Path, grant_ttl: str, machines: str) -> Iterator[Service]:
    settings = {"TAG_TTL": "1", "GRANT_TTL": grant_ttl, "STALE_TTL": "600"}
    with (
        faulty_upstream(folder, folder / "upstream") as upstream,
        cached(on(machines, serve, folder), upstream, folder / "cache", **settings) as mirror,
    ):
        service = Service(mirror, upstream, make_image("public", (5000,)), make_image("secret", (5000,)))
        for image in (service.public, service.secret):
            upstream.push(image, "1")
        upstream.tag(pub=service.public.manifest.digest, secret=service.secret.manifest.digest)
        for image, tag, who in ((service.public, "pub", None), (service.secret, "secret", OWNER)):
            headers = ACCEPT | ({"Authorization": who} if who else {})
            with mirror.proxy.connection_to_each_worker() as connections:
                for connection in connections:
                    for path, content in service.paths(image, tag).items():
                        assert send(connection, "GET", path, headers).body == content
        settle()
        lose_index(machines, mirror.proxy)
        yield service


@MACHINES
@pytest.mark.parametrize("grant_ttl", ["1", "600"])
@pytest.mark.parametrize("status", [503, 429])
def test_an_upstream_outage_gives_anonymous_callers_no_private_content(
    serve: Serving, tmp_path: Path, status: int, grant_ttl: str, machines: str
) -> None:
    with turned(serve, tmp_path, grant_ttl, machines) as service:
        service.upstream.control({"status": status, "methods": ["GET", "HEAD"]})
        service.assert_secret_is_kept()
        for path, content in service.paths(service.public, "pub").items():
            answer = service.mirror.proxy.get(path, **ACCEPT)
            assert (answer.status, answer.body) == (200, content)


@MACHINES
@pytest.mark.parametrize("grant_ttl", ["1", "600"])
def test_a_429_for_another_repository_gives_anonymous_callers_no_private_content(
    serve: Serving, tmp_path: Path, grant_ttl: str, machines: str
) -> None:
    with turned(serve, tmp_path, grant_ttl, machines) as service:
        refused = {"status": 401, "methods": ["GET", "HEAD"], "path": "/team/app/"}
        throttled = {"status": 429, "retry_after": "60", "methods": ["GET", "HEAD"], "path": "/other/"}
        service.upstream.control(throttled, refused)
        with service.mirror.proxy.connection_to_each_worker() as connections:
            for connection in connections:
                assert send(connection, "GET", "/v2/other/app/manifests/1", ACCEPT).status == 429
        service.assert_secret_is_kept()


@MACHINES
@pytest.mark.parametrize("grant_ttl", ["1", "600"])
def test_an_invalid_accept_header_gives_anonymous_callers_no_private_content(
    serve: Serving, tmp_path: Path, grant_ttl: str, machines: str
) -> None:
    with turned(serve, tmp_path, grant_ttl, machines) as service:
        service.upstream.control({"status": 401, "methods": ["GET", "HEAD"], "path": "/team/app/"})
        for path, content in service.paths(service.secret, "secret").items():
            got = _raw(service.mirror.proxy.url, path, f"{ACCEPT['Accept']}, x\ny")
            assert got.startswith(b"HTTP/1.1 4"), got[:80]
            assert content not in got


def _raw(url: str, path: str, accept: str) -> bytes:
    """Send the header unchanged. Returns all bytes until the connection is closed."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=20) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        got = b""
        while piece := connection.recv(65536):
            got += piece
        return got
