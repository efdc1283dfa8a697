"""A fresh Debian in a folder, in which packages are installed and services run."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNT = """
set -e
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
if [ "$1" = --read-only ]; then
    shift
    for folder in "$root/tmp" "$root/var/lib/docker-image-proxy"; do
        mount --bind "$folder" "$folder"
    done
    mount -o remount,bind,ro "$root"
fi
exec chroot "$root" "$@"
"""
"""Runs a command in the system. Its mounts end with it. The exec keeps the process id, so signals reach the command."""

HOME = "/root"
"""The folder of the user that runs the commands."""
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_PROXY")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class BareSystem:
    root: Path

    def argv(self, *words: str, read_only: bool = False) -> list[str]:
        """The command line that runs this command in the system. With `read_only`, it can write only to /tmp, /run and
        the cache of the service.
        """
        options = ["--read-only"] if read_only else []
        return ["unshare", "--mount", "sh", "-c", MOUNT, "sh", str(self.root), *options, *words]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in (*PASSED_ON, *PROXIES) if name in os.environ}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": HOME, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **kept, **more}

    def run(self, *words: str, check: bool = True) -> str:
        """What the command printed. If it fails, the error has its output."""
        done = subprocess.run(
            self.argv(*words), env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=900,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def install(self, *packages: str) -> str:
        options = ["-q", "-y", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]
        return self.run("apt-get", *options, "install", *packages)

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")


def run(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, seconds: float = 900) -> str:
    """What the program printed. If it fails, the error has its output."""
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
