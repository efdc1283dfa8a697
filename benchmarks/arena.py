"""The set-up of one run: the folder, the upstream with its content, and the servers that are compared."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import COLD_CONTENDERS, CONTENDERS, REPOSITORY, Server, Setup
from benchmarks.downloads import download
from benchmarks.plan import MIB, Plan, size_text
from benchmarks.results import Results
from benchmarks.usage import rested_cpu_seconds
from benchmarks.watching import Watch
from tests.e2e.support.certificates import PrivateAuthority, make_authority
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.images import OCI_LAYER, Blob, Image, make_image
from tests.e2e.support.push import push_blob, push_image

_MEMORY = Path("/dev/shm")  # noqa: S108 - the run creates a private folder in it
_RESIDENT = 3  # times the size of a blob; docker-registry has two copies of it for a moment
TAG_PATH = f"/v2/{REPOSITORY}/manifests/1"


def blob_path(digest: str) -> str:
    return f"/v2/{REPOSITORY}/blobs/{digest}"


@dataclass
class Arena:
    folder: Path
    upstream: Registry
    tls_upstream: Registry  # the same content over TLS
    authority: PrivateAuthority  # has signed the certificate of the upstream and that of the servers
    image: Image
    big: str  # digests
    small: str
    ranged: str
    results: Results
    watch: Watch | None  # of the service, in each scenario
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def plan(self) -> Plan:
        return self.results.plan

    def file(self, digest: str) -> Path:
        """The blob in the storage of the upstream."""
        encoded = digest.partition(":")[2]
        return self.folder / "upstream/docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"

    @contextmanager
    def flipped(self, digest: str) -> Iterator[None]:
        """Flip one bit of the blob in the storage of the upstream, which sends it without checking the digest."""
        file = self.file(digest)
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

    def setup(
        self, upstream: str = "", *, serves_tls: bool = False, settings: Mapping[str, str] | None = None
    ) -> Setup:  # fmt: skip
        """`upstream` is a URL; `settings` are those of the service, besides the default ones."""
        return Setup(upstream or self.upstream.url, self.authority, serves_tls, settings or {}, self.watch)

    @contextmanager
    def fresh(self, name: str, setup: Setup | None = None) -> Iterator[Server]:
        """A server with an empty cache."""
        with self.room(name) as folder, COLD_CONTENDERS[name](folder, setup or self.setup()) as server:
            yield server

    @contextmanager
    def awake(self, name: str, setup: Setup | None = None) -> Iterator[Server]:
        """A server whose blobs are not cached, but which has connected to the upstream: it has sent the manifest."""
        with self.fresh(name, setup) as server:
            for _ in range(8):
                server.get(TAG_PATH)
            yield server

    @contextmanager
    def filled(self, digests: Sequence[str], setup: Setup | None = None, first: int = 0) -> Iterator[list[Server]]:
        """All servers at the same time, each with these blobs in its cache. Their digests are verified. `first`: the
        number of the server that is filled and measured first.
        """
        names = list(CONTENDERS)
        start = first % len(names)
        with ExitStack() as stack:
            servers = [stack.enter_context(self.awake(name, setup)) for name in names[start:] + names[:start]]
            for server in servers:
                self.make_resident(sum(self.file(digest).stat().st_size for digest in digests))
                for digest in digests:
                    download(server, blob_path(digest))
                    rested_cpu_seconds(server.process.pid)
                    download(server, blob_path(digest), digest=digest)
            yield servers

    def make_resident(self, size: int) -> None:
        """Write and delete a file where the caches are, before a server stores blobs of this size.

        The host of a virtual machine can take free memory back. The first write to a page that it has taken costs
        several times as much as the next one, so a server would be measured by what the one before it had used.
        """
        piece = bytes(MIB)
        with tempfile.TemporaryFile(dir=self.folder, buffering=0) as file:
            for _ in range(_RESIDENT * size // MIB):
                file.write(piece)


@contextmanager
def make_arena(results: Results, watch: Watch | None = None) -> Iterator[Arena]:
    plan = results.plan
    base = _memory_backed(plan)
    if base is None:
        results.note(f"Less than {size_text(plan.space)} of memory was free for files: the caches were on a disk.")
    with tempfile.TemporaryDirectory(prefix="dip-bench-", dir=base) as name:
        folder, content = Path(name), Path(name, "upstream")
        content.mkdir()
        authority = make_authority(folder)
        with (
            docker_registry(folder, content, "upstream") as upstream,
            docker_registry(folder, content, "tls-upstream", tls=authority.server) as tls_upstream,
        ):
            image = make_image("bench", [plan.layer] * 4, docker=True)
            push_image(upstream.url, REPOSITORY, "1", image)
            big, small, ranged = (_push_random(upstream, size) for size in (plan.big, plan.small, plan.ranged))
            yield Arena(folder, upstream, tls_upstream, authority, image, big, small, ranged, results, watch)


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
