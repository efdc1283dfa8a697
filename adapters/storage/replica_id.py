"""The id of this replica, in a file in the cache folder, so that all processes of the replica have the same one."""

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from adapters.storage.safe_paths import ACTING, cache_folder, open_file

_FILE = "replica-id"
_ID_BYTES = 16
_ID = re.compile(r"[0-9a-f]{32}")


def make_replica_id(configured: Path) -> None:
    """Make an id at random, unless the cache folder has one. A damaged id is replaced. Raises OSError."""
    with (
        cache_folder(configured, make=True) as folder,
        os.fdopen(open_file(folder.descriptor, _FILE, write=True), "r+b") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)  # another process may be making it
        if _ID.fullmatch(file.read().decode("ascii", errors="replace")):
            return
        file.seek(0)
        file.truncate()
        file.write(_random_id().encode())
        file.flush()
        os.fsync(file.fileno())
        if ACTING.number is not None:
            os.fchown(file.fileno(), ACTING.number, -1)  # root acts for the owner of the cache, who uses the id, too


def replica_id(configured: Path) -> str:
    """32 hexadecimal digits. If the id cannot be read, this process gets one of its own, as if it were another replica.
    Nothing is written: some commands run as a user who must not leave files in the cache folder.
    """
    with (
        suppress(OSError),
        cache_folder(configured) as folder,
        os.fdopen(open_file(folder.descriptor, _FILE), "rb") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_SH)
        if _ID.fullmatch(found := file.read().decode("ascii", errors="replace")):
            return found
    return _random_id()


def _random_id() -> str:
    return secrets.token_hex(_ID_BYTES)
