"""A mirror with a cache and a faulty upstream, with access to the cache folder and the metrics."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import random
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.images import Image
from tests.e2e.support.plain_http import answers, connect, fetch, send
from tests.e2e.support.processes import Process, free_port, running, wait_until
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import SERVERS, LoggedUpstream

KIB = 1 << 10
MIB = 1 << 20
NAME = "e2e/cached"
METRIC = re.compile(r"docker_image_proxy_(?:cache_)?(?P<name>\w+?)(?:\{.*\})? (?P<value>[0-9.e+]+)")


@dataclass(frozen=True)
class Made:
    """A new blob and its path at the mirror."""

    digest: str
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def path(self) -> str:
        return f"/v2/{NAME}/blobs/{self.digest}"


@dataclass
class FaultyUpstream(LoggedUpstream):
    """A running `faulty_upstream.py`."""

    files: Path = Path()

    def control(self, *rules: dict[str, Any]) -> None:
        """Replace the rules of the upstream. Without rules it has no faults."""
        assert fetch("POST", f"{self.url}/control", body=json.dumps(rules).encode()).status == 200

    def holds(self, count: int = 1) -> bool:
        """Wait until `count` answers are held."""
        return wait_until(lambda: self.state("holding") == count, 20)

    def sends(self, count: int) -> bool:
        """Wait until at least `count` answers with content are being sent."""
        return wait_until(lambda: self.state("sending") >= count, 30)

    def state(self, name: str) -> int:
        """A number in the state that the upstream tells."""
        return int(fetch("GET", f"{self.url}/control").json()[name])

    def mark(self) -> int:
        self._has_noted_all()
        return super().mark()

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        self._has_noted_all()
        return super().log(since)

    def _has_noted_all(self) -> bool:
        """Wait until the log has a line for each answer that a client may have received."""
        return self.process.returncode is not None or wait_until(lambda: self.state("ending") == 0, 5)

    def add(self, content: bytes, algorithm: str = "sha256") -> str:
        digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        (self.files / digest).write_bytes(content)
        return digest

    def blob(self, size: int = MIB, algorithm: str = "sha256") -> Made:
        content = random.randbytes(size)  # noqa: S311 - content, not a secret
        return Made(self.add(content, algorithm), content)

    def push(self, image: Image, tag: str) -> None:
        for blob in (*image.blobs, image.manifest):
            self.add(blob.content)
        self.tag(**{tag: image.manifest.digest})

    def tag(self, **digests: str) -> None:
        """Set the digests of these tags and delete all other tags."""
        (self.files / "tags.json").write_text(json.dumps(digests))

    def gets(self, path: str, since: int = 0) -> list[dict[str, Any]]:
        return [entry for entry in self.log(since) if (entry["method"], entry["path"]) == ("GET", path)]


@contextmanager
def faulty_upstream(
    folder: Path,
    files: Path,
    port: int | None = None,
    *,
    program: str = "faulty_upstream.py",
    words: tuple[str, ...] = (),
) -> Iterator[FaultyUpstream]:
    port = port or free_port()
    files.mkdir(exist_ok=True)
    number = len(list(folder.glob("faulty-*.log")))
    argv = [sys.executable, str(SERVERS / program), str(port), str(files), *words]
    process = Process(argv, folder / f"faulty-{number}.log")
    url = f"http://127.0.0.1:{port}"
    with running(process, lambda: answers(f"{url}/control")):
        yield FaultyUpstream(process, url, files=files)


@dataclass(frozen=True)
class CacheFolder:
    path: Path

    def file(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.path / "content" / algorithm / encoded[:2] / encoded

    def holds(self, made: Made, seconds: float = 10) -> bool:
        """Wait until the blob is cached and each worker may serve it. Returns whether its content is correct."""
        file = self.file(made.digest)
        return (
            wait_until(file.is_file, seconds)
            and file.read_bytes() == made.content
            and wait_until(lambda: self.is_in_index(made.digest), seconds)
        )

    def is_in_index(self, digest: str) -> bool:
        """Whether the index says which upstream sent the content. That is written after the answer and after the rest
        that the index knows of it; until then another worker fetches the content again.
        """
        with contextlib.closing(sqlite3.connect(f"file:{self.path}/index.sqlite3?mode=ro", uri=True)) as index:
            return bool(index.execute("SELECT 1 FROM sent WHERE digest = ?", (digest,)).fetchall())

    def content_size(self) -> int:
        return _total(self.path / "content")

    def partial_bytes(self) -> int:
        """The number of bytes in partial blobs."""
        return _total(self.path / "drafts")

    def wrong(self) -> list[str]:
        """The names of content files whose digest is not their name."""
        files = [file for file in (self.path / "content").rglob("*") if file.is_file()]
        return [
            file.name for file in files
            if hashlib.new(file.parts[-3], file.read_bytes()).hexdigest() != file.name
        ]  # fmt: skip

    def abandoned(self) -> list[str]:
        """The partial blobs that no worker fills, which are those without a lock."""
        return [file.name for file in (self.path / "drafts").rglob("*") if file.is_file() and not _is_locked(file)]


def _total(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # the file was deleted in the meantime
            total += file.stat().st_size if file.is_file() else 0
    return total


def _is_locked(file: Path) -> bool:
    """Whether the file is locked or deleted."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def settle() -> None:
    """Wait until one worker's index entries, which it writes after its answer, are visible to the other worker."""
    time.sleep(0.5)


@dataclass(frozen=True)
class Pulled:
    """`whole`: the client saw no sign that something is missing. A `status` of 0: the connection broke before it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool


def pull(port: int, path: str, headers: dict[str, str] | None = None) -> Pulled:
    """Send one GET whose body may break off."""
    with contextlib.closing(connect(f"http://127.0.0.1:{port}", timeout=60)) as connection:
        return pull_over(connection, path, headers)


def pull_over(connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None) -> Pulled:
    """Send one GET over an open connection."""
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        body, whole = _read(response)
        return Pulled(response.status, response.headers, body, whole)
    except ConnectionError:
        return Pulled(0, http.client.HTTPMessage(), b"", whole=False)


def _read(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    try:
        return response.read(), "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    except http.client.IncompleteRead as cut:
        return cut.partial, False
    except ConnectionError:
        return b"", False


@dataclass(frozen=True)
class Cached:
    """A mirror with its upstream and its cache folder."""

    proxy: Proxy
    upstream: FaultyUpstream
    cache: CacheFolder

    def pull(self, made: Made, **headers: str) -> Pulled:
        return pull(self.proxy.port, made.path, headers)

    def gives(self, made: Made) -> bool:
        """Whether the mirror serves the complete and correct blob."""
        pulled = self.pull(made)
        return (pulled.status, pulled.whole, pulled.body) == (200, True, made.content)

    def warm(self, size: int = MIB) -> Made:
        """A blob that is in the cache."""
        made = self.upstream.blob(size)
        assert self.gives(made)
        assert self.cache.holds(made)
        return made

    def counted(self, name: str, workers: int = 2) -> float:
        """The metric with this name (without its prefix), summed over its labels and the pages of all workers, whether
        a counter is shared by the workers or not.
        """
        with self.proxy.connection_to_each_worker(workers) as connections:
            pages = [send(connection, "GET", "/metrics") for connection in connections]
        assert {page.status for page in pages} == {200}
        return sum(_sum(page.body.decode(), name) for page in pages)

    def complaints(self) -> list[str]:
        """The warnings and errors in the log of the service."""
        lines = [json.loads(line) for line in self.proxy.process.settled_lines() if line.startswith("{")]
        return [json.dumps(line) for line in lines if line["level"] in ("WARNING", "ERROR", "CRITICAL")]


def _sum(page: str, name: str) -> float:
    found = [METRIC.fullmatch(line) for line in page.splitlines()]
    return sum(float(line["value"]) for line in found if line and line["name"] == name)


@contextmanager
def cached(serve: Serving, upstream: FaultyUpstream, folder: Path, **settings: str) -> Iterator[Cached]:
    with serve(UPSTREAM_REGISTRY=upstream.url, CACHE_DIR=str(folder), **settings) as proxy:
        yield Cached(proxy, upstream, CacheFolder(folder))
