"""The set-up of one run: the folder, the upstream with its content, and the servers that are compared."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import CONTENDERS, REPOSITORY, Server
from benchmarks.downloads import download
from benchmarks.plan import Plan, size_text
from benchmarks.results import Results
from benchmarks.usage import rested_cpu_seconds
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.images import OCI_LAYER, Blob, Image, make_image
from tests.e2e.support.push import push_blob, push_image

_MEMORY = Path("/dev/shm")  # noqa: S108 - the run creates a private folder in it
TAG_PATH = f"/v2/{REPOSITORY}/manifests/1"


def blob_path(digest: str) -> str:
    return f"/v2/{REPOSITORY}/blobs/{digest}"


@dataclass
class Arena:
    folder: Path
    upstream: Registry
    image: Image
    big: str  # digests
    small: str
    results: Results
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def plan(self) -> Plan:
        return self.results.plan

    @contextmanager
    def flipped(self, digest: str) -> Iterator[None]:
        """Flip one bit of the blob in the storage of the upstream, which sends it without checking the digest."""
        encoded = digest.partition(":")[2]
        file = self.folder / "upstream/docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"
        self._flip(file)
        try:
            yield
        finally:
            self._flip(file)

    @staticmethod
    def _flip(file: Path) -> None:
        with file.open("r+b") as data:
            data.seek(file.stat().st_size // 2)
            byte = data.read(1)
            data.seek(-1, os.SEEK_CUR)
            data.write(bytes([byte[0] ^ 1]))

    @property
    def digest_path(self) -> str:
        return f"/v2/{REPOSITORY}/manifests/{self.image.manifest.digest}"

    @contextmanager
    def room(self, name: str) -> Iterator[Path]:
        """A new folder, removed at the end, because its files take memory from the next measurement."""
        folder = self.folder / f"{next(self._numbers)}-{name.partition(' ')[0]}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def fresh(self, name: str) -> Iterator[Server]:
        """A server with an empty cache."""
        with self.room(name) as folder, CONTENDERS[name](folder, self.upstream.url) as server:
            yield server

    @contextmanager
    def awake(self, name: str) -> Iterator[Server]:
        """A server whose blobs are not cached, but which has connected to the upstream: it has sent the manifest."""
        with self.fresh(name) as server:
            for _ in range(8):
                server.get(TAG_PATH)
            yield server

    @contextmanager
    def filled(self) -> Iterator[list[Server]]:
        """All servers at the same time, each with all blobs in its cache. Their digests are verified."""
        with ExitStack() as stack:
            servers = [stack.enter_context(self.awake(name)) for name in CONTENDERS]
            for server in servers:
                for digest in (self.small, self.big):
                    download(server, blob_path(digest))
                    rested_cpu_seconds(server.process.pid)
                    download(server, blob_path(digest), digest=digest)
            yield servers


@contextmanager
def make_arena(results: Results) -> Iterator[Arena]:
    plan = results.plan
    base = _memory_backed(plan)
    if base is None:
        results.note(f"Less than {size_text(plan.space)} of memory was free for files: the caches were on a disk.")
    with tempfile.TemporaryDirectory(prefix="dip-bench-", dir=base) as name:
        folder, content = Path(name), Path(name, "upstream")
        content.mkdir()
        with docker_registry(folder, content, "upstream") as upstream:
            image = make_image("bench", [plan.layer] * 4, docker=True)
            push_image(upstream.url, REPOSITORY, "1", image)
            big, small = (_push_random(upstream, size) for size in (plan.big, plan.small))
            yield Arena(folder, upstream, image, big, small, results)


def _push_random(upstream: Registry, size: int) -> str:
    blob = Blob(os.urandom(size), OCI_LAYER)
    push_blob(upstream.url, REPOSITORY, blob)
    return blob.digest


def _memory_backed(plan: Plan) -> Path | None:
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < plan.space:
        return None
    # The free size of /dev/shm is only a limit. The memory for it must be available too.
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(meminfo["MemAvailable"].split()[0]) * 1024
    return _MEMORY if available > plan.space + plan.memory else None
