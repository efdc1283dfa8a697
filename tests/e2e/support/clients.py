"""skopeo, podman, buildah and curl without the configuration and the logins of the machine."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.docker import Ran, run
from tests.e2e.support.images import digest_of
from tests.e2e.support.processes import SEARCH_PATH


def _environment(home: Path) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    logins = home / "auth.json"
    if not logins.exists():
        logins.write_text("{}")
    return {
        "PATH": SEARCH_PATH, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "TMPDIR": str(home),
        "REGISTRY_AUTH_FILE": str(logins),
    }  # fmt: skip


def curl(*arguments: str) -> Ran:
    return run(["curl", "--silent", "--show-error", "--noproxy", "*", *arguments])


@dataclass(frozen=True)
class Skopeo:
    home: Path

    def __call__(self, *arguments: str) -> Ran:
        return run(["skopeo", "--insecure-policy", *arguments], env=_environment(self.home))

    def inspect(self, reference: str, *options: str) -> dict[str, Any]:
        done = self("inspect", "--tls-verify=false", *options, f"docker://{reference}").ok()
        return dict(json.loads(done.output.partition("\n")[2]))

    def copy(self, reference: str, *options: str) -> Ran:
        place = f"dir:{self.home}/copied"
        return self("copy", "--src-tls-verify=false", *options, f"docker://{reference}", place)

    def copied_digests(self) -> set[str]:
        """The digests of the copied files, computed from their content."""
        folder = self.home / "copied"
        return {digest_of(file.read_bytes()) for file in folder.iterdir() if file.name != "version"}


@dataclass(frozen=True)
class Podman:
    home: Path

    def __call__(self, *arguments: str, stdin: str = "", registries: Path | None = None) -> Ran:
        # vfs needs no kernel support, and the events no journal.
        own = ["--root", f"{self.home}/root", "--runroot", f"{self.home}/run", "--storage-driver", "vfs"]
        quiet = ["--events-backend", "none", "--cgroup-manager", "cgroupfs"]
        named = {"CONTAINERS_REGISTRIES_CONF": str(registries)} if registries else {}
        return run(["podman", *own, *quiet, *arguments], stdin, env=_environment(self.home) | named)

    def pull(self, reference: str, *options: str) -> Ran:
        return self("pull", "--tls-verify=false", *options, reference)

    def search(self, term: str, *options: str) -> Ran:
        return self("search", "--tls-verify=false", "--format", "{{.Name}}", *options, term)

    def login(self, host: str, name: str, password: str) -> Ran:
        return self("login", "--tls-verify=false", "--username", name, "--password-stdin", host, stdin=password)

    def inspect(self, reference: str) -> dict[str, Any]:
        done = self("image", "inspect", reference).ok()
        # The output has other text before and after the list.
        return dict(json.JSONDecoder().raw_decode(done.output, done.output.index("\n[") + 1)[0][0])


@dataclass(frozen=True)
class Buildah:
    home: Path

    def __call__(self, *arguments: str, registries: Path | None = None) -> Ran:
        own = ["--root", f"{self.home}/root", "--runroot", f"{self.home}/run", "--storage-driver", "vfs"]
        conf = ["--registries-conf", str(registries)] if registries else []
        return run(["buildah", *own, *conf, *arguments], env=_environment(self.home))

    def digest(self, reference: str) -> str:
        done = self("images", "--format", "{{.Digest}}", reference).ok()
        return done.output.split("\n")[1]


@contextmanager
def temporary_home() -> Iterator[Path]:
    # podman and buildah refuse a run root whose path is longer than 50 characters.
    home = Path(tempfile.mkdtemp(prefix="dip-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
