"""A separate dockerd (as root, without bridge or iptables) and its docker client."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.processes import SEARCH_PATH, NotReadyError, Process, program, running

HUB = "https://index.docker.io/v1/"

# The fallback to Docker Hub must fail at once, with or without an internet connection.
NOWHERE = "http://127.0.0.1:9"
NO_INTERNET = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost"}


@dataclass(frozen=True)
class Ran:
    """The exit status and the output of a command."""

    status: int
    output: str

    def ok(self) -> "Ran":
        assert self.status == 0, self.output
        return self


def run(argv: list[str], stdin: str = "", env: Mapping[str, str] | None = None, seconds: float = 90) -> Ran:
    argv = [program(argv[0]) or argv[0], *argv[1:]]
    done = subprocess.run(
        argv, input=stdin, env=env, timeout=seconds, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return Ran(done.returncode, f"$ {' '.join(argv)}\n{done.stdout}")


class Docker:
    """A docker client with its own folder of logins, connected to one daemon."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self._argv = ["docker", "--host", f"unix://{socket}", "--config", str(folder)]
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._write({})

    def log_in_to_hub_as(self, name: str, password: str) -> None:
        """Write what `docker login` would write for Docker Hub. docker sends only this login to a mirror."""
        self._write({HUB: {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}})

    def log_out_of_hub(self) -> None:
        self._write({})

    def _write(self, auths: Mapping[str, Any]) -> None:
        (self._folder / "config.json").write_text(json.dumps({"auths": auths}))

    def logins(self) -> dict[str, Any]:
        return dict(json.loads((self._folder / "config.json").read_text()).get("auths", {}))

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        # The client reads plugins and contexts from HOME.
        env = {"PATH": SEARCH_PATH, "HOME": str(self._folder)}
        return run([*self._argv, *arguments], stdin, env)

    def login(self, host: str, name: str, password: str) -> Ran:
        return self("login", "--username", name, "--password-stdin", host, stdin=password)

    def pull(self, reference: str) -> Ran:
        return self("pull", reference)

    def search(self, term: str) -> Ran:
        return self("search", term)

    def inspect(self, reference: str) -> dict[str, Any]:
        done = self("image", "inspect", reference).ok()
        return dict(json.loads(done.output.partition("\n")[2])[0])

    def diff_ids(self, reference: str) -> list[str]:
        return list(self.inspect(reference)["RootFS"]["Layers"])

    def repo_digests(self, reference: str) -> list[str]:
        return list(self.inspect(reference)["RepoDigests"])

    def forget_images(self) -> None:
        """Delete all images, so that the next pull fetches each layer again."""
        images = self("image", "ls", "--all", "--quiet").ok().output.split("\n")[1:]
        if identities := {line for line in images if line.strip()}:
            self("image", "rm", "--force", *sorted(identities)).ok()


@dataclass
class Dockerd:
    process: Process
    socket: Path


@contextmanager
def dockerd(mirror: str, log: Path) -> Iterator[Dockerd]:
    # A short path, because the path of a socket below it may have at most 108 characters.
    folder = Path(tempfile.mkdtemp(prefix="dip-"))
    socket = folder / "docker.sock"
    config = {
        "data-root": str(folder / "data"), "exec-root": str(folder / "exec"), "pidfile": str(folder / "pid"),
        "hosts": [f"unix://{socket}"], "registry-mirrors": [mirror],
        "bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False, "ip-masq": False,
        # The classic image store; containerd's sends a mirror no login (docs/guides/accounts.md).
        "features": {"containerd-snapshotter": False},
    }  # fmt: skip
    (folder / "daemon.json").write_text(json.dumps(config))
    env = {**os.environ, "PATH": SEARCH_PATH, **NO_INTERNET}
    process = Process(["dockerd", "--config-file", str(folder / "daemon.json")], log, env)
    client = Docker(socket, folder / "client")
    try:
        with running(process, lambda: socket.exists() and client("version").status == 0, 30):
            yield Dockerd(process, socket)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_no_dockerd() -> str | None:
    """The reason why dockerd cannot run on this machine, or None."""
    missing = [name for name in ("dockerd", "docker", "containerd") if not program(name)]
    if missing:
        return f"{', '.join(missing)} not installed"
    return None if os.geteuid() == 0 else "dockerd needs root"


__all__ = ["HUB", "Docker", "Dockerd", "NotReadyError", "Ran", "dockerd", "run", "why_no_dockerd"]
