"""A separate containerd (as root), and its client ctr."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.support.docker import NO_INTERNET, Ran, run
from tests.e2e.support.processes import SEARCH_PATH, Process, running


@dataclass(frozen=True)
class Containerd:
    socket: Path
    hosts: Path

    def __call__(self, *arguments: str) -> Ran:
        return run(["ctr", "--address", str(self.socket), *arguments], env={"PATH": SEARCH_PATH, **NO_INTERNET})

    def configure(self, registry: str, text: str) -> None:
        """Write `/etc/containerd/certs.d/REGISTRY/hosts.toml` for this registry, and delete all others."""
        shutil.rmtree(self.hosts, ignore_errors=True)
        folder = self.hosts / registry
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(text)

    def fetch(self, reference: str) -> Ran:
        """Fetch the complete image without unpacking it, because unpacking needs mounts."""
        return self("content", "fetch", "--hosts-dir", str(self.hosts), "--all-platforms", reference)

    def digests(self) -> set[str]:
        """The digests in the content store."""
        return set(self("content", "ls", "--quiet").ok().output.split("\n")[1:]) - {""}

    def forget(self) -> None:
        for reference in self("images", "ls", "--quiet").ok().output.split("\n")[1:]:
            if reference:
                self("images", "rm", "--sync", reference).ok()


@contextmanager
def containerd(log: Path) -> Iterator[Containerd]:
    folder = Path(tempfile.mkdtemp(prefix="dip-"))
    socket = folder / "containerd.sock"
    config = folder / "config.toml"
    # A JSON string is also a TOML string.
    config.write_text(
        "version = 2\n"
        f"root = {json.dumps(str(folder / 'root'))}\n"
        f"state = {json.dumps(str(folder / 'state'))}\n"
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f"[grpc]\n  address = {json.dumps(str(socket))}\n"
    )
    process = Process(["containerd", "--config", str(config)], log, {"PATH": SEARCH_PATH, **NO_INTERNET})
    client = Containerd(socket, folder / "certs.d")
    try:
        with running(process, lambda: client("version").status == 0, 30):
            yield client
    finally:
        shutil.rmtree(folder, ignore_errors=True)
