"""Folders that are opened by descriptor, one below the other, without following a symbolic link.

A path that is resolved by name at each use follows the links that are in it at that moment. So a user who can write to
a folder of the cache could have files outside of it read, overwritten or removed. An open descriptor names one folder
for good, and `openat`, `unlinkat` and `renameat` (the `dir_fd` arguments of `os`) look no further than into it.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SUBFOLDER = "docker-image-proxy"
"""The service's own folder where users besides its own can write to the configured one."""

_PRIVATE = 0o700
"""Other users of the machine must not read content that only some callers may pull."""
_CONFIGURED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""The configured folder itself may be reached by links: systemd's StateDirectory= is one with DynamicUser=."""
_INNER = _CONFIGURED | os.O_NOFOLLOW


class CacheFolder(NamedTuple):
    """The open folder that holds the cache. `path` is for messages, and for what cannot take a descriptor."""

    descriptor: int
    path: Path


class ActingUser:
    """The user whose cache this process works in: its own, unless root works in another user's."""

    number: int | None = None


ACTING = ActingUser()


@contextmanager
def cache_folder(configured: Path, names: Iterable[str] = (), *, make: bool = False) -> Iterator[CacheFolder]:
    """The folder that holds the cache: the configured one, or its subfolder where other users can write to it. With
    `names`, its descriptor is that of a folder inside, which the names lead to, one below the other.

    `make`: make what is missing. Raises OSError where a folder is missing or cannot be opened, and PermissionError
    where the subfolder belongs to another user.
    """
    path = configured
    if make and not configured.exists():
        configured.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    descriptor = os.open(configured, _CONFIGURED)
    try:
        if _is_shared(os.fstat(descriptor)):
            path = configured / SUBFOLDER
            descriptor = _enter(descriptor, SUBFOLDER, make=make)
            _require_own(descriptor, configured)
        for name in names:
            descriptor = _enter(descriptor, name, make=make)
        yield CacheFolder(descriptor, path)
    finally:
        os.close(descriptor)


def require_usable(configured: Path) -> None:
    """The folder that holds the cache is there, can be written to, and holds no link and nothing of another user's.
    Raises OSError.
    """
    with cache_folder(configured, make=True) as folder:
        trial = f".trial-{secrets.token_hex(8)}"
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder.descriptor))
        os.unlink(trial, dir_fd=folder.descriptor)
        for name in names_in(folder.descriptor):
            state = state_at(folder.descriptor, name)
            if state and stat.S_ISLNK(state.st_mode):
                raise OSError(errno.ELOOP, f"{name} in it is a symbolic link")
            if state and not os.access(name, os.R_OK | os.W_OK, dir_fd=folder.descriptor):
                raise PermissionError(errno.EACCES, f"{name} in it is another user's")


def owner_of_cache(configured: Path) -> tuple[int, int]:
    """User and group of the folder that holds the cache, also where other users use it. Only root can look into every
    folder, so only root calls this. Root's own user and group if there is no folder yet.
    """
    try:
        descriptor = os.open(configured, _CONFIGURED)
    except OSError:
        return os.geteuid(), os.getegid()
    try:
        own = state_at(descriptor, SUBFOLDER)
        state = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    # The subfolder is there where the configured one is not the service's alone.
    if own and stat.S_ISDIR(own.st_mode):
        state = own
    return state.st_uid, state.st_gid


def state_at(folder: int, name: str) -> os.stat_result | None:
    """Of the entry itself, where it is a link too; None where there is none. Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names_in(folder: int) -> list[str]:
    """Of everything in an open folder. Raises OSError."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def open_file(folder: int, name: str, *, write: bool = False) -> int:
    """A descriptor of a regular file in an open folder. Raises OSError.

    `write`: to read and write; the file is made if it is missing, with mode 0600. A file with a second name is refused
    then, because what is written to it would be written to the file of that name.
    """
    # O_NONBLOCK has no effect on a regular file; without it, opening a pipe would wait for its writer.
    flags = os.O_CREAT | os.O_RDWR if write else os.O_RDONLY | os.O_NONBLOCK
    descriptor = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or (write and state.st_nlink > 1):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file of its own")
    return descriptor


def _is_shared(state: os.stat_result) -> bool:
    """Whether users other than this process's and root can add to the folder, or remove from it.

    With access control lists the bits of the group are the most that any list grants (acl(5)).
    """
    return bool(state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) or state.st_uid not in {0, _user()}


def _enter(descriptor: int, name: str, *, make: bool) -> int:
    """A descriptor of the folder of that name in the open folder, which is closed then. `make`: make a missing folder.
    Raises OSError, and leaves the open folder open.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, _PRIVATE, dir_fd=descriptor)
    inner = os.open(name, _INNER, dir_fd=descriptor)
    os.close(descriptor)
    return inner


def _user() -> int:
    return os.geteuid() if ACTING.number is None else ACTING.number


def _require_own(own: int, configured: Path) -> None:
    state = os.fstat(own)
    if state.st_uid != _user():
        reason = f"other users can write to it, and {SUBFOLDER!r} in it belongs to another user, number {state.st_uid}"
        raise PermissionError(errno.EACCES, reason, str(configured))
    if stat.S_IMODE(state.st_mode) & ~_PRIVATE & 0o777:
        os.fchmod(own, _PRIVATE)
