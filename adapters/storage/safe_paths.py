"""Opens folders by descriptor, one inside the other, without following symbolic links.

If the service used paths, each use would follow the links that are in the path at that moment. A user who can write to
a folder of the cache could then make the service read, overwrite or remove files outside of the cache. An open
descriptor always means the same folder, and `openat`, `unlinkat` and `renameat` (the `dir_fd` arguments of `os`) act
only on entries of that folder.
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
"""The folder that the service uses inside the configured one, if other users can write to the configured one."""

_PRIVATE = 0o700
"""Other users of the machine must not read content that only some callers may pull."""
_CONFIGURED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""The path of the configured folder may contain links: systemd creates one for StateDirectory= with DynamicUser=."""
_INNER = _CONFIGURED | os.O_NOFOLLOW


class CacheFolder(NamedTuple):
    """The open folder that contains the cache. `path`: for messages, and for SQLite, which takes no descriptor."""

    descriptor: int
    path: Path


class ActingUser:
    """The user who owns the cache that this process uses. None: the user of the process. Root may act for another."""

    number: int | None = None


ACTING = ActingUser()


@contextmanager
def cache_folder(configured: Path, names: Iterable[str] = (), *, make: bool = False) -> Iterator[CacheFolder]:
    """The folder that contains the cache, open until the context ends: the configured one, or its subfolder if other
    users can write to the configured one. `names`: the subfolders to enter from there, one inside the other; the
    descriptor is then that of the last one.

    `make`: make missing folders. Raises OSError if a folder is missing or cannot be opened, and PermissionError if the
    subfolder belongs to another user.
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
    """Check that the folder that contains the cache exists or can be made, that this process can write to it, and that
    it contains no links and no files that this process cannot read and write. Raises OSError.
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
    """User and group of the folder that contains the cache; those of this process if there is no folder yet. Only root
    calls this, because other users cannot open every folder.
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
    # If the subfolder exists, it contains the cache, because other users can write to the configured folder.
    if own and stat.S_ISDIR(own.st_mode):
        state = own
    return state.st_uid, state.st_gid


def state_at(folder: int, name: str) -> os.stat_result | None:
    """The state of an entry of an open folder; of the link itself for a link; None if it is missing. Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names_in(folder: int) -> list[str]:
    """The names of all entries of an open folder. Raises OSError."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def open_file(folder: int, name: str, *, write: bool = False) -> int:
    """A descriptor of a regular file in an open folder. Raises OSError.

    `write`: to read and write. A missing file is made, with mode 0600. A file with a second name (a hard link) is an
    error, because that name may be in a folder that is not ours.
    """
    # O_NONBLOCK has no effect on a regular file. Without it, opening a pipe would wait for a writer.
    flags = os.O_CREAT | os.O_RDWR if write else os.O_RDONLY | os.O_NONBLOCK
    descriptor = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or (write and state.st_nlink > 1):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file of its own")
    return descriptor


def _is_shared(state: os.stat_result) -> bool:
    """Whether other users than root and the acting user can add entries to the folder or remove them.

    With access control lists, the bits of the group are the maximum that any entry of the list grants (acl(5)).
    """
    return bool(state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) or state.st_uid not in {0, _user()}


def _enter(descriptor: int, name: str, *, make: bool) -> int:
    """Open the folder of that name inside an open folder, and close the outer one. `make`: make a missing folder. If it
    raises OSError, the outer folder stays open.
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
    """The subfolder must belong to the acting user, and only that user may access it. Raises PermissionError."""
    state = os.fstat(own)
    if state.st_uid != _user():
        reason = f"other users can write to it, and {SUBFOLDER!r} in it belongs to another user, number {state.st_uid}"
        raise PermissionError(errno.EACCES, reason, str(configured))
    if stat.S_IMODE(state.st_mode) & ~_PRIVATE & 0o777:
        os.fchmod(own, _PRIVATE)
