"""Recognizes network file systems, on which file locks are not reliable enough to be leases."""

import os
import re
from pathlib import Path

_KINDS = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "coda", "ncpfs", "davfs", "vboxsf"),
        *("ceph", "glusterfs", "lustre", "beegfs", "gpfs", "pvfs2", "orangefs", "gfs2", "ocfs2", "wekafs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"),
        *("fuse.goofys", "fuse.juicefs", "fuse.mfs", "fuse.moosefs", "fuse.seaweedfs", "fuse.blobfuse"),
        *("fuse.blobfuse2", "fuse.davfs2", "fuse.davfs", "fuse.mount-s3", "fuse.smbnetfs", "fuse.curlftpfs"),
    }
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def network_file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that the path is or would be on, if it is a network file system. None for a local
    one, and if the list of mounts cannot be read.
    """
    place = Path(os.path.realpath(path))
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    # If several file systems are mounted at one point, the last hides the others.
    best, kind = -1, ""
    for point, its_kind in map(_mount, lines):
        if len(point) >= best and point and place.is_relative_to(point):
            best, kind = len(point), its_kind
    return kind if kind in _KINDS else None


def _mount(line: str) -> tuple[str, str]:
    """Mount point and type (proc(5), /proc/pid/mountinfo); empty strings if the line is not in that format."""
    front, _, back = line.partition(" - ")
    words, kinds = front.split(" "), back.split(" ")
    if len(words) < 6 or not kinds[0]:  # noqa: PLR2004 - the fields before the optional ones
        return "", ""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), words[4]), kinds[0]
