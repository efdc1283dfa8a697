"""Disks that are small, and other processes."""

import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from domain.upstreams import Origin, Upstream

ROOT = Path(__file__).parents[3]
UPSTREAM = Upstream("https://one.test", Origin("https", "one.test", 443))
OTHER = Upstream("https://two.test", Origin("https", "two.test", 443))


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of that size; skips the test where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def process(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs this code, with its standard input and output; killed at the end."""
    command = [sys.executable, "-c", code, *map(str, args)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert running.stdout
    return running.stdout.readline().strip()


def tell(running: subprocess.Popen[str]) -> None:
    """Let it go on from its next `input()`."""
    assert running.stdin
    running.stdin.write("\n")
    running.stdin.flush()


def open_descriptors() -> int:
    gc.collect()  # those that other tests left lying about would go at some moment of this one
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[FilesystemContentStore]:
    """A content store in this folder, closed at the end."""
    store = FilesystemContentStore(folder)
    try:
        yield store
    finally:
        store.close()
