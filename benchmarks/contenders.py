"""Start the servers that are compared. Each listens on a loopback port and has its cache in the given folder."""

import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.nginx import configuration
from benchmarks.results import DISTRIBUTION, NGINX, OURS, REGISTRY, SANIC, SANIC_LOGGING
from benchmarks.watching import Watch
from tests.e2e.support.certificates import PrivateAuthority
from tests.e2e.support.images import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.e2e.support.plain_http import UpstreamResponse, answers, fetch
from tests.e2e.support.processes import Process, free_port, running, wait_until
from tests.e2e.support.service import Proxy, command, environment

WORKERS = 2
REPOSITORY = "bench/app"
# What docker sends for a manifest.
ACCEPT = f"Accept: {DOCKER_MANIFEST}, {OCI_INDEX}, {OCI_MANIFEST}"


@dataclass(frozen=True)
class Setup:
    """What a server is started with. For an upstream with TLS, it trusts the authority. `watch`: watches the service
    while it runs, if it is to be watched; `is_page_open`: then also by its page.
    """

    upstream: str  # URL
    authority: PrivateAuthority
    serves_tls: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)  # of the service, besides the default ones
    watch: Watch | None = None
    is_page_open: bool = True


@dataclass
class Server:
    name: str
    process: Process
    port: int
    start_seconds: float = 0.0  # from exec to the first 200
    ca: Path | None = None  # the authority that clients trust, if the server uses TLS

    @property
    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca) if self.ca else None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.port}"

    def headers(self) -> list[str]:
        """The headers that a docker client sends, one per line. Fetches a new token, because tokens expire soon."""
        if self.name != OURS:
            return [ACCEPT]
        token = Proxy(self.process, self.port, self.tls).token(f"repository:{REPOSITORY}:pull")
        return [ACCEPT, f"Authorization: Bearer {token}"]

    def get(self, path: str) -> UpstreamResponse:
        headers = dict(line.split(": ", 1) for line in self.headers())
        return fetch("GET", f"{self.url}{path}", headers, tls=self.tls)


@contextmanager
def _started(
    name: str, folder: Path, argv: Sequence[str], port: int, *, live: str = "/v2/",
    env: Mapping[str, str] | None = None, ca: Path | None = None,
) -> Iterator[Server]:  # fmt: skip
    began = time.perf_counter()
    server = Server(name, Process(argv, folder / "server.log", env), port, ca=ca)
    url, tls = f"{server.url}{live}", server.tls
    # This loop asks more often than running(), whose pause is as long as the start of nginx.
    with running(server.process, lambda: wait_until(lambda: answers(url, tls=tls), 1, pause=0.001)):
        server.start_seconds = time.perf_counter() - began
        yield server


def _clients_trust(setup: Setup) -> Path | None:
    return setup.authority.certificate if setup.serves_tls else None


@contextmanager
def ours(folder: Path, setup: Setup) -> Iterator[Server]:
    port = free_port()
    cache = folder / "cache"
    cache.mkdir()
    # Default values, except for addresses and folders. LOG_FORMAT is set because environment() changes its default.
    settings = {
        "UPSTREAM_REGISTRY": setup.upstream, "CACHE_DIR": str(cache), "LOG_FORMAT": "text", "WORKERS": str(WORKERS),
        **setup.settings,
    }  # fmt: skip
    if setup.upstream.startswith("https:"):
        settings["UPSTREAM_CA"] = str(setup.authority.certificate)
    if setup.serves_tls:
        pair = setup.authority.server
        settings |= {"TLS_CERT": str(pair.certificate), "TLS_KEY": str(pair.key)}
    env, ca = environment(port, settings), _clients_trust(setup)
    with _started(OURS, folder, command("serve"), port, live="/livez", env=env, ca=ca) as server:
        # Wait until all workers answer; the first one answers while the others still start.
        with Proxy(server.process, port, server.tls).connection_to_each_worker(int(settings["WORKERS"])):
            pass
        with setup.watch.of(server.url, ca, is_page_open=setup.is_page_open) if setup.watch else nullcontext():
            yield server


Start = Callable[[Path, Setup], AbstractContextManager[Server]]


def registry_proxy(folder: Path, setup: Setup) -> AbstractContextManager[Server]:
    return _registry(REGISTRY, "docker-registry", folder, setup)


def distribution(program: Path) -> Start:
    return lambda folder, setup: _registry(DISTRIBUTION, str(program), folder, setup)


@contextmanager
def _registry(name: str, program: str, folder: Path, setup: Setup) -> Iterator[Server]:
    port = free_port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "bench"}
    if setup.serves_tls:
        pair = setup.authority.server
        http["tls"] = {"certificate": str(pair.certificate), "key": str(pair.key)}
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "cache")},
            "cache": {"blobdescriptor": "inmemory"},  # as in the configuration that Debian installs
            "delete": {"enabled": True},
        },
        "http": http,
        "proxy": {"remoteurl": setup.upstream},
    }
    file = folder / "registry.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    env = {**os.environ, "SSL_CERT_FILE": str(setup.authority.certificate)}
    with _started(name, folder, [program, "serve", str(file)], port, env=env, ca=_clients_trust(setup)) as server:
        yield server


@contextmanager
def nginx(folder: Path, setup: Setup) -> Iterator[Server]:
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(configuration(folder, port, setup.upstream, WORKERS, setup.authority, serves_tls=setup.serves_tls))
    argv = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)]
    with _started(NGINX, folder, argv, port, ca=_clients_trust(setup)) as server:
        yield server


@contextmanager
def empty_sanic(folder: Path, size: int, *, access_log: bool) -> Iterator[Server]:
    """Sanic without the service: as many workers, and a handler that returns a body of this size."""
    port = free_port()
    program = str(Path(__file__).with_name("empty_sanic.py"))
    argv = [sys.executable, program, str(port), str(size), str(WORKERS), "on" if access_log else "off"]
    name = SANIC_LOGGING if access_log else SANIC
    with _started(name, folder, argv, port, live="/v2/x") as server:
        yield server


CONTENDERS: dict[str, Start] = {OURS: ours, REGISTRY: registry_proxy, NGINX: nginx}
# Those that are measured for cold blobs. distribution v3 is among them if it was built: it differs from docker-registry
# in that it stores a blob while it sends it.
COLD_CONTENDERS: dict[str, Start] = dict(CONTENDERS)
