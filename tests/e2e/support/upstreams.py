"""The kinds of upstream that the tests need, with one folder of content that is pushed once."""

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.certificates import KeyPair, PrivateAuthority
from tests.e2e.support.docker_registry import Registry, Request, docker_registry, htpasswd_auth, token_auth
from tests.e2e.support.images import Image, Index, make_image, make_index
from tests.e2e.support.plain_http import answers, fetch
from tests.e2e.support.processes import Process, free_port, running
from tests.e2e.support.push import push_image

SERVERS = Path(__file__).with_name("servers")
ACCOUNTS = {"alice": "alice-pass", "bob": "bob-pass"}
SERVICE = "e2e-upstream"
LIFETIME = 600  # seconds, of the tokens of the upstream

# Docker Hub has no repositories of these names, because docker falls back to it silently.
PUBLIC = "public/e2e-three"
PRIVATE = "private/e2e-three"
BOBS = "bobs/e2e-three"
MULTI = "public/deeper/still/e2e-multi"
SINGLE = "library/e2e-single-segment"
READERS = {"public/": ["*"], "library/": ["*"], "private/": ["alice"], "bobs/": ["bob"]}


def basic(name: str, password: str | None = None) -> str:
    pair = f"{name}:{ACCOUNTS[name] if password is None else password}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def account_entry(name: str) -> str:
    """One entry of the service's ACCOUNTS."""
    return basic(name).partition(" ")[2]


@dataclass(frozen=True)
class Content:
    """The content of the folder that all registries serve."""

    folder: Path
    images: dict[str, Image]
    multi: Index

    def blob_file(self, digest: str) -> Path:
        encoded = digest.partition(":")[2]
        return self.folder / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"


def make_content(folder: Path, logs: Path, seed: str = "") -> Content:
    """Push the images into the folder. Names and tags are always the same; the bytes depend on the seed."""
    sizes = (40_000, 1_500_000, 300_000)
    images = {
        PUBLIC: make_image(f"{seed}public", sizes, docker=True),
        PRIVATE: make_image(f"{seed}private", sizes),
        BOBS: make_image(f"{seed}bobs", sizes),
        SINGLE: make_image(f"{seed}single", sizes, docker=True),
    }
    content = Content(folder, images, make_index(f"{seed}multi", sizes))
    with docker_registry(logs, folder, f"{seed}filling") as registry:
        for name, image in images.items():
            push_image(registry.url, name, "1", image)
        push_image(registry.url, MULTI, "1", content.multi)
    return content


@dataclass
class TokenUpstream:
    """A docker-registry with token authentication, and its token server on another port."""

    registry: Registry
    server: Process
    realm: str
    realm_host: str

    @property
    def url(self) -> str:
        return self.registry.url

    @property
    def port(self) -> int:
        return self.registry.port

    def mark(self) -> int:
        return self.registry.mark()

    def content_requests(self, since: int = 0) -> list[Request]:
        return self.registry.content_requests(since)

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a service with this upstream. They name the token server, which is on another port."""
        return {"UPSTREAM_REGISTRY": self.url, "UPSTREAM_REALMS": self.realm_host}

    def token_requests(self, since: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.server.settled_lines(since) if line.startswith("{")]

    def token(self, scope: str, account: str | None = None) -> str:
        headers = {"Authorization": basic(account)} if account else {}
        answer = fetch("GET", f"{self.realm}?service={SERVICE}&scope={scope}", headers)
        assert answer.status == 200, answer.body
        return str(answer.json()["token"])


@contextmanager
def token_upstream(folder: Path, content: Content, signer: KeyPair) -> Iterator[TokenUpstream]:
    port = free_port()
    settings = {
        "port": port, "issuer": "e2e-issuer", "key": str(signer.key), "certificate": str(signer.certificate),
        "accounts": ACCOUNTS, "repositories": READERS, "lifetime": LIFETIME,
    }  # fmt: skip
    file = folder / "token-server.json"
    file.write_text(json.dumps(settings))
    server = Process([sys.executable, str(SERVERS / "token_server.py"), str(file)], folder / "token-server.log")
    realm = f"http://127.0.0.1:{port}/token"
    auth = token_auth(realm, SERVICE, settings["issuer"], signer)
    with (
        running(server, lambda: answers(realm)),
        docker_registry(folder, content.folder, "token", auth=auth) as registry,
    ):
        yield TokenUpstream(registry, server, realm, f"127.0.0.1:{port}")


def htpasswd_upstream(folder: Path, content: Content) -> Any:
    auth = htpasswd_auth(folder / "htpasswd")
    return docker_registry(folder, content.folder, "htpasswd", auth=auth)


def tls_upstream(folder: Path, content: Content, authority: PrivateAuthority) -> Any:
    return docker_registry(folder, content.folder, "tls", tls=authority.server)


@dataclass
class LoggedUpstream:
    """An upstream program of the tests, whose log has one JSON object per request."""

    process: Process
    url: str
    realm_host: str = ""

    @property
    def settings(self) -> dict[str, str]:
        return {"UPSTREAM_REGISTRY": self.url, "UPSTREAM_REALMS": self.realm_host}

    def mark(self) -> int:
        return self.process.mark()

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.process.settled_lines(since) if line.startswith("{")]

    def content_requests(self, since: int = 0) -> list[Request]:
        found = [
            Request(entry["method"], entry["path"], entry["status"], entry["agent"], entry.get("user"))
            for entry in self.log(since)
        ]
        return [request for request in found if not request.is_ping]


@contextmanager
def spied(folder: Path, upstream: Registry | TokenUpstream) -> Iterator[LoggedUpstream]:
    port = free_port()
    argv = [sys.executable, str(SERVERS / "logging_relay.py"), str(port), str(upstream.port)]
    realm_host = upstream.realm_host if isinstance(upstream, TokenUpstream) else ""
    process = Process(argv, folder / f"spy-{port}.log")
    url = f"http://127.0.0.1:{port}"
    with running(process, lambda: answers(f"{url}/v2/") or answers(f"{url}/v2/", 401)):
        yield LoggedUpstream(process, url, realm_host)


@contextmanager
def gated(folder: Path, upstream: LoggedUpstream, size: int) -> Iterator[tuple[str, Path]]:
    """The address of a relay that holds each answer after `size` bytes, and the file that makes it continue."""
    port, opened = free_port(), folder / "gate-is-open"
    behind = upstream.url.rpartition(":")[2]
    argv = [sys.executable, str(SERVERS / "holding_relay.py"), str(port), behind, str(size), str(opened)]
    process = Process(argv, folder / "gate.log")
    with running(process, lambda: b"listening" in process.log.read_bytes()):
        yield f"http://127.0.0.1:{port}", opened


@contextmanager
def blob_server(folder: Path, files: Path) -> Iterator[LoggedUpstream]:
    port = free_port()
    argv = [sys.executable, str(SERVERS / "blob_server.py"), str(port), str(files)]
    process = Process(argv, folder / f"blobs-{port}.log")
    url = f"http://127.0.0.1:{port}"
    with running(process, lambda: answers(f"{url}/v2/")):
        yield LoggedUpstream(process, url)


@dataclass
class RedirectingUpstream:
    registry: Registry
    blobs: LoggedUpstream

    @property
    def url(self) -> str:
        return self.registry.url

    @property
    def settings(self) -> dict[str, str]:
        return self.registry.settings


@contextmanager
def redirecting_upstream(
    folder: Path, content: Content, auth: dict[str, Any] | None = None
) -> Iterator[RedirectingUpstream]:
    with (
        blob_server(folder, content.folder) as blobs,
        docker_registry(folder, content.folder, "redirecting", auth=auth, blobs_at=blobs.url) as registry,
    ):
        yield RedirectingUpstream(registry, blobs)
