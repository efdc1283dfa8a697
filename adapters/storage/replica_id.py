"""The id of this replica, in a file in the cache folder, so that all processes of the replica have the same one."""

import fcntl
import os
import re
import secrets
from pathlib import Path

from adapters.storage.safe_paths import ACTING, cache_folder, open_file

_FILE = "replica-id"
_ID_BYTES = 16
_ID = re.compile(r"[0-9a-f]{32}")


def replica_id(configured: Path) -> str:
    """32 hexadecimal digits. The first process that asks makes the id at random and writes it to the file. A damaged id
    is replaced. Raises OSError.
    """
    with (
        cache_folder(configured, make=True) as folder,
        os.fdopen(open_file(folder.descriptor, _FILE, write=True), "r+b") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)  # another process may be making it
        found = file.read().decode("ascii", errors="replace")
        if _ID.fullmatch(found):
            return found
        made = secrets.token_hex(_ID_BYTES)
        file.seek(0)
        file.truncate()
        file.write(made.encode())
        file.flush()
        os.fsync(file.fileno())
        if ACTING.number is not None:
            os.fchown(file.fileno(), ACTING.number, -1)  # root acts for the owner of the cache, who uses the id, too
        return made
