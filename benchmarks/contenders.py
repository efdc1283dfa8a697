"""Start the servers that are compared. Each listens on a loopback port and has its cache in the given folder."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.nginx import configuration
from benchmarks.results import NGINX, OURS, REGISTRY, SANIC, SANIC_LOGGING
from tests.e2e.support.images import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.e2e.support.plain_http import UpstreamResponse, answers, fetch
from tests.e2e.support.processes import Process, free_port, running, wait_until
from tests.e2e.support.service import Proxy, command, environment

WORKERS = 2
REPOSITORY = "bench/app"
# What docker sends for a manifest.
ACCEPT = f"Accept: {DOCKER_MANIFEST}, {OCI_INDEX}, {OCI_MANIFEST}"


@dataclass
class Server:
    name: str
    process: Process
    port: int
    start_seconds: float  # from exec to the first 200

    def headers(self) -> list[str]:
        """The headers that a docker client sends, one per line. Fetches a new token, because tokens expire soon."""
        if self.name != OURS:
            return [ACCEPT]
        token = Proxy(self.process, self.port).token(f"repository:{REPOSITORY}:pull")
        return [ACCEPT, f"Authorization: Bearer {token}"]

    def get(self, path: str) -> UpstreamResponse:
        headers = dict(line.split(": ", 1) for line in self.headers())
        return fetch("GET", f"http://127.0.0.1:{self.port}{path}", headers)


Start = Callable[[Path], AbstractContextManager[Server]]


@contextmanager
def _started(
    name: str, folder: Path, argv: Sequence[str], port: int, *, live: str = "/v2/", env: Mapping[str, str] | None = None
) -> Iterator[Server]:  # fmt: skip
    url = f"http://127.0.0.1:{port}{live}"
    began = time.perf_counter()
    process = Process(argv, folder / "server.log", env)
    # This loop asks more often than running(), whose pause is as long as the start of nginx.
    with running(process, lambda: wait_until(lambda: answers(url), 1, pause=0.001)):
        yield Server(name, process, port, time.perf_counter() - began)


@contextmanager
def ours(folder: Path, upstream: str) -> Iterator[Server]:
    port = free_port()
    cache = folder / "cache"
    cache.mkdir()
    # Default values, except for addresses and folders. LOG_FORMAT is set because environment() changes its default.
    settings = {"UPSTREAM_REGISTRY": upstream, "CACHE_DIR": str(cache), "LOG_FORMAT": "text", "WORKERS": str(WORKERS)}
    with _started(OURS, folder, command("serve"), port, live="/livez", env=environment(port, settings)) as server:
        # Wait until all workers answer; the first one answers while the others still start.
        with Proxy(server.process, port).connection_to_each_worker(WORKERS):
            pass
        yield server


@contextmanager
def registry_proxy(folder: Path, upstream: str) -> Iterator[Server]:
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "cache")},
            "cache": {"blobdescriptor": "inmemory"},  # as in the configuration that Debian installs
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
        "proxy": {"remoteurl": upstream},
    }
    file = folder / "registry.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    with _started(REGISTRY, folder, ["docker-registry", "serve", str(file)], port) as server:
        yield server


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[Server]:
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(configuration(folder, port, upstream, WORKERS))
    with _started(NGINX, folder, ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)], port) as server:
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


CONTENDERS: dict[str, Callable[[Path, str], AbstractContextManager[Server]]] = {
    OURS: ours,
    REGISTRY: registry_proxy,
    NGINX: nginx,
}
