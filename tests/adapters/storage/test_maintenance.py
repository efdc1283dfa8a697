import asyncio
import os
from pathlib import Path

from adapters.storage.maintenance import FilesystemStorageMaintenance
from application.ports.content import Space
from domain.digest import Digest
from tests.fakes.clock import StoppedClock

DIGEST = Digest.of(b"content")


def place(folder: Path, digest: Digest = DIGEST) -> Path:
    path = folder / "content" / digest.algorithm / digest.encoded[:2] / digest.encoded
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_files_of_other_programs_are_not_content(tmp_path: Path) -> None:
    place(tmp_path).write_bytes(b"content")
    strangers = [
        place(tmp_path).with_name("short"),
        place(tmp_path).with_name(DIGEST.encoded.upper()),
        place(tmp_path).parent.parent / "zz" / DIGEST.encoded,
        tmp_path / "content" / "md5" / DIGEST.encoded[:2] / DIGEST.encoded,
        tmp_path / "content" / "sha256" / "file",
        tmp_path / "content" / "file",
    ]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_bytes(b"strange")
    place(tmp_path, Digest.of(b"folder")).mkdir()
    place(tmp_path, Digest.of(b"link")).symlink_to(place(tmp_path))
    maintenance = FilesystemStorageMaintenance(tmp_path, StoppedClock())
    assert asyncio.run(maintenance.contents()) == {DIGEST: 7}
    maintenance.close()


def test_the_file_of_an_interrupted_put_is_removed_after_an_hour(tmp_path: Path) -> None:
    clock = StoppedClock()
    (tmp_path / "temporary").mkdir()
    left = tmp_path / "temporary" / "tmpabc"
    left.write_bytes(b"cont")
    os.utime(left, (clock.now(), clock.now()))
    maintenance = FilesystemStorageMaintenance(tmp_path, clock)
    assert asyncio.run(maintenance.space()).partial_blobs == 4
    clock.advance(3600)
    assert asyncio.run(maintenance.remove_abandoned_partial_blobs()) == 0
    clock.advance(1)
    assert asyncio.run(maintenance.remove_abandoned_partial_blobs()) == 1
    assert not left.exists()
    maintenance.close()


def test_without_a_folder_there_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    maintenance = FilesystemStorageMaintenance(tmp_path / "file" / "cache", StoppedClock())
    assert asyncio.run(maintenance.space()) == Space(0, 0, 0)
    assert asyncio.run(maintenance.remove_abandoned_partial_blobs()) == 0
    assert asyncio.run(maintenance.contents()) == {}
    maintenance.close()


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    maintenance = FilesystemStorageMaintenance(tmp_path / "deep" / "cache", StoppedClock())
    assert asyncio.run(maintenance.space()).total > 0
    maintenance.close()
