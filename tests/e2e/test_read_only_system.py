"""The service writes only to its cache and to memory, as deploy/compose.yaml and the Helm chart require."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, CacheFolder, FaultyUpstream, faulty_upstream, pull
from tests.e2e.support.plain_http import answers
from tests.e2e.support.processes import Process, free_port, running
from tests.e2e.support.service import command, environment

pytestmark = [pytest.mark.real("unshare"), pytest.mark.slow]

# The file system is read-only. The cache has a file system of its own; temporary files and /dev/shm are in memory.
RUN = """
set -e
mount --bind "$CACHE_DIR" "$CACHE_DIR"
mount -o remount,bind,ro /
mount -t tmpfs none /dev/shm
mount -t tmpfs none "$TMPDIR"
cd /
touch /is-writable 2>/dev/null && exit 90
exec "$@"
"""


def mounts_are_possible() -> bool:
    argv = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0


@pytest.fixture
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "read-only-upstream") as running_one:
        yield running_one


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach and write to, as an emptyDir of Kubernetes."""
    with tempfile.TemporaryDirectory(prefix="dip-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_the_service_runs_on_a_read_only_file_system(upstream: FaultyUpstream, folder: Path, workplace: Path) -> None:
    if not mounts_are_possible():
        pytest.skip("this user may not mount file systems")
    port, made = free_port(), upstream.blob(3 * MIB)
    settings = {"CACHE_DIR": str(folder), "UPSTREAM_REGISTRY": upstream.url, "TMPDIR": "/mnt"}
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", RUN, "sh", *command("serve")]
    process = Process(argv, workplace / "read-only.log", environment(port, settings))
    with running(process, lambda: answers(f"http://127.0.0.1:{port}/readyz"), 30):
        pulled = pull(port, made.path)
        assert (pulled.status, pulled.body) == (200, made.content)
        # Others can write to the folder, so the service uses a folder of its own in it.
        assert CacheFolder(folder / "docker-image-proxy").holds(made)
    assert process.returncode == 0
