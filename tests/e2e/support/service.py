"""The service started as a user starts it: the console script, with settings in the environment and a loopback port."""

import atexit
import functools
import http.client
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.support.plain_http import UpstreamResponse, answers, connect, fetch
from tests.e2e.support.processes import Process, free_port, program, running, session_pids, wait_until
from tests.e2e.support.upstreams import basic

SECRET = "e2e-secret-of-forty-characters-and-more-x"
SCRIPT = Path(sys.executable).with_name("docker-image-proxy")


@dataclass
class Proxy:
    process: Process
    port: int
    tls: ssl.SSLContext | None = None  # if set, the service uses HTTPS and its clients this context

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def get(self, path: str, authorization: str | None = None, **headers: str) -> UpstreamResponse:
        return self.request("GET", path, authorization, **headers)

    def request(self, method: str, path: str, authorization: str | None = None, **headers: str) -> UpstreamResponse:
        if authorization:
            headers["Authorization"] = authorization
        return fetch(method, self.url + path, headers, tls=self.tls)

    def open(self, path: str, authorization: str | None = None) -> "Transfer":
        return Transfer(self, path, authorization)

    def ask_token(self, scope: str, authorization: str | None, **query: str) -> UpstreamResponse:
        """Request a token as a client does: with the service in the challenge of `/v2/`, at `/v2/auth`."""
        challenge = self.get("/v2/").headers["WWW-Authenticate"]
        service = challenge.partition('service="')[2].partition('"')[0]
        return self.get("/v2/auth?" + urlencode({"service": service, "scope": scope, **query}), authorization)

    def token(self, scope: str, account: str | None = None) -> str:
        answer = self.ask_token(scope, basic(account) if account else None)
        assert answer.status == 200, (answer.status, answer.body)
        return str(answer.json()["token"])

    def accesses(self, since: int = 0) -> list[dict[str, Any]]:
        """The lines of the access log: one JSON object per request."""
        entries = [json.loads(line) for line in self.process.settled_lines(since) if line.startswith("{")]
        return [entry for entry in entries if "method" in entry and "path" in entry]

    def reload(self) -> list[str]:
        """Send SIGHUP. Returns the log lines about the reload."""
        since = self.process.mark()
        os.kill(self.process.pid, signal.SIGHUP)

        def said() -> list[str]:
            return [line for line in self.process.log_lines(since) if "settings " in line]

        assert wait_until(lambda: bool(said()), 15), self.process.tail()
        return said()

    def worker_of(self, connection: http.client.HTTPConnection) -> int:
        """The process of the service that has the other end of the connection."""
        worker = self._worker_at(connection)
        assert worker, f"no process of {self.host} holds the other end of the connection"
        return worker

    def _worker_at(self, connection: http.client.HTTPConnection) -> int | None:
        """As `worker_of`. None if it is a process of an earlier service on the same port, which has not ended yet."""
        ours = connection.sock.getsockname()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()  # number, local address, remote address, ..., inode
            if fields[1].endswith(f":{self.port:04X}") and fields[2].endswith(f":{ours:04X}"):
                inode = f"socket:[{fields[9]}]"
                return next((pid for pid in session_pids(self.process.pid) if inode in _open_files(pid)), None)
        raise AssertionError(f"{self.host} holds no end of the connection from port {ours}")

    def _asked_worker(self, connection: http.client.HTTPConnection) -> int | None:
        """The worker that has answered a request on the connection. None as for `_worker_at`."""
        connection.request("GET", "/livez")
        connection.getresponse().read()
        return self._worker_at(connection)

    def is_reached(self) -> bool:
        """Whether clients reach this service, and not an earlier one on the same port, which has not ended yet."""
        try:
            with closing(connect(self.url, self.tls)) as connection:
                return self._asked_worker(connection) is not None
        except (OSError, http.client.HTTPException):
            return False

    @contextmanager
    def connection_to_each_worker(self, workers: int = 2) -> Iterator[list[http.client.HTTPConnection]]:
        """One open connection to each worker. The kernel chooses the worker, so connect until all are reached."""
        held: list[http.client.HTTPConnection] = []
        found: dict[int, http.client.HTTPConnection] = {}
        end = time.monotonic() + 15
        try:
            while len(found) < workers:
                assert time.monotonic() < end, f"only {len(found)} of {workers} workers accept connections"
                time.sleep(0.002 * len(held))
                held.append(connect(self.url, self.tls))
                if worker := self._asked_worker(held[-1]):
                    found.setdefault(worker, held[-1])
            yield list(found.values())
        finally:
            for connection in held:
                connection.close()


class Transfer:
    """One GET whose body the test reads step by step."""

    def __init__(self, proxy: Proxy, path: str, authorization: str | None = None) -> None:
        self.connection = connect(proxy.url, timeout=30)
        headers = {"Authorization": authorization} if authorization else {}
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()

    def __enter__(self) -> http.client.HTTPResponse:
        return self.response

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()


def _open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except OSError:  # the file was closed in the meantime
            continue
    return found


def command(*arguments: str) -> list[str]:
    # The script next to the interpreter of the tests, or the module of this source tree if it is not installed.
    script = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "entrypoints.cli"]
    return [*script, *arguments]


@functools.cache
def _caches() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dip-caches-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def environment(port: int, settings: Mapping[str, str]) -> dict[str, str]:
    # The environment of the caller is not passed on: ACCOUNTS or HTTPS_PROXY would change what is tested. Each
    # service has its own cache, so that a test does not find what an earlier test pulled.
    return {
        "CACHE_DIR": str(_caches() / str(port)),
        "PATH": str(Path(program("sh") or "/bin/sh").parent), "LANG": "C.UTF-8",
        "HOST": "127.0.0.1", "PORT": str(port), "WORKERS": "2", "LOG_FORMAT": "json", **settings,
    }  # fmt: skip


@contextmanager
def serving(
    folder: Path, port: int | None = None, *, ready: str = "/readyz", descriptors: int | None = None, **settings: str
) -> Iterator[Proxy]:
    """Run the service. It is ready when the path `ready` answers 200. `descriptors` is the soft limit at its start."""
    port = port or free_port()
    number = len(list(folder.glob("proxy-*.log")))
    cache = folder / f"cache-{number}"
    cache.mkdir()
    environ = environment(port, {"CACHE_DIR": str(cache), **settings})
    shell = ["sh", "-c", f'ulimit -S -n {descriptors}; exec "$@"', "sh"] if descriptors else []
    process = Process([*shell, *command("serve")], folder / f"proxy-{number}.log", environ)
    proxy = Proxy(process, port)
    try:
        with running(process, lambda: proxy.is_reached() and answers(proxy.url + ready), 30):
            # One worker answers while the others still start, so wait for all of them.
            with proxy.connection_to_each_worker(int(environ["WORKERS"])):
                pass
            yield proxy
    finally:
        # Some tests pull gigabytes, and pytest keeps the folders of recent sessions.
        shutil.rmtree(cache, ignore_errors=True)


Serving = Callable[..., AbstractContextManager[Proxy]]
