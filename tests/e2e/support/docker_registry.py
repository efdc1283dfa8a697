"""The real docker-registry with a folder of content, with each kind of authentication, with TLS and with redirects."""

import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.certificates import KeyPair
from tests.e2e.support.plain_http import answers
from tests.e2e.support.processes import Process, free_port, running

# A line of docker-registry's access log. Its structured log does not contain refused requests.
LINE = re.compile(r'\S+ - \S+ \[.*?\] "(?P<method>\S+) (?P<path>\S+) .*?" (?P<status>\d+) \S+ ".*?" "(?P<agent>.*)"')


@dataclass(frozen=True)
class Request:
    """One request from the log of the upstream. `user` is known only if the log contains the user."""

    method: str
    path: str
    status: int
    agent: str = ""
    user: str | None = None

    @property
    def is_ping(self) -> bool:
        """Whether it is a ping, which the service sends independently of requests."""
        return self.path in ("/v2/", "/v2")


@dataclass
class Registry:
    process: Process
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a service with this upstream."""
        return {"UPSTREAM_REGISTRY": self.url}

    def mark(self) -> int:
        return self.process.mark()

    def requests(self, since: int = 0) -> list[Request]:
        found = [LINE.match(line) for line in self.process.settled_lines(since)]
        return [Request(line["method"], line["path"], int(line["status"]), line["agent"]) for line in found if line]

    def content_requests(self, since: int = 0) -> list[Request]:
        return [request for request in self.requests(since) if not request.is_ping]


@contextmanager
def docker_registry(
    folder: Path, content: Path, name: str, *, auth: dict[str, Any] | None = None,
    tls: KeyPair | None = None, blobs_at: str | None = None, port: int | None = None,
) -> Iterator[Registry]:  # fmt: skip
    port = port or free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "formatter": "json", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(content)},
            # Several registries share the content, so no registry may purge old uploads.
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "e2e"},
    }
    if auth:
        config["auth"] = auth
    if tls:
        config["http"]["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    if blobs_at:
        config["middleware"] = {"storage": [{"name": "redirect", "options": {"baseurl": blobs_at}}]}
    file = folder / f"registry-{name}.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    process = Process(["docker-registry", "serve", str(file)], folder / f"registry-{name}.log")
    registry = Registry(process, port, "https" if tls else "http")
    with running(process, lambda: _answers(registry)):
        yield registry


def _answers(registry: Registry) -> bool:
    # This only checks readiness of a server that the test has started, so the certificate is not verified.
    context = ssl._create_unverified_context()  # noqa: S323
    return answers(f"{registry.url}/v2/", 200, context) or answers(f"{registry.url}/v2/", 401, context)


def token_auth(realm: str, service: str, issuer: str, signer: KeyPair) -> dict[str, Any]:
    certificate = str(signer.certificate)
    return {"token": {"realm": realm, "service": service, "issuer": issuer, "rootcertbundle": certificate}}


def htpasswd_auth(file: Path) -> dict[str, Any]:
    # bcrypt hashes of the passwords in upstreams.py, made with `htpasswd -Bbn`.
    file.write_text(
        "alice:$2y$05$3pXqInBXniu/LGfvyrDl1uRAFmVOhAJT6m55S/XdnYKmko1Bb39Sq\n"
        "bob:$2y$05$Pm7l1vkCRD.Wm3dE7GUFtu74BkWCAhEvEeeqQsUYdF.rPJrOPqsOK\n"
    )
    return {"htpasswd": {"realm": "e2e htpasswd", "path": str(file)}}
