from pathlib import Path

import pytest

from adapters.storage.network_file_systems import network_file_system

MOUNTS = r"""
22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:22 / /proc rw shared:2 master:1 - proc proc rw
30 22 0:40 / /srv/nfs rw - nfs4 server:/a rw
31 30 8:1 / /srv/nfs/local rw - xfs /dev/vdb rw
32 22 0:41 / /srv/with\040space\134 rw - fuse.sshfs me@server: rw
33 22 0:42 / /srv/twice rw - cifs //server/a rw
34 33 0:43 / /srv/twice rw - tmpfs tmpfs rw
35 22 0:44 / /srv/windows rw - 9p drvfs rw
a line that is none
36 22 0:45
37 22 0:46 / /srv/cut rw -
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        ("/srv", None),
        ("/srv/nfs", "nfs4"),
        ("/srv/nfs/deep/er", "nfs4"),
        ("/srv/nfsother", None),
        ("/srv/nfs/local/cache", None),
        ("/srv/nfs/localother", "nfs4"),
        ("/srv/with space\\/cache", "fuse.sshfs"),
        ("/srv/twice/cache", None),
        ("/srv/windows/../nfs/cache", "nfs4"),
        ("/srv/windows", "9p"),
        ("/srv/cut", None),
    ],
)
def test_the_innermost_mount_gives_the_type(path: str, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS, encoding="utf-8")
    assert network_file_system(Path(path), tmp_path / "mountinfo") == kind


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS, encoding="utf-8")
    (tmp_path / "link").symlink_to("/srv/nfs")
    assert network_file_system(tmp_path / "link" / "cache", tmp_path / "mountinfo") == "nfs4"


def test_without_a_list_of_mounts_the_file_system_counts_as_local(tmp_path: Path) -> None:
    assert network_file_system(Path("/srv"), tmp_path / "missing") is None
    (tmp_path / "empty").write_text("", encoding="utf-8")
    assert network_file_system(Path("/srv"), tmp_path / "empty") is None


def test_the_mounts_of_this_machine_are_read() -> None:
    assert network_file_system(Path("/proc/self")) is None
