"""What others do between two steps of ours."""

import asyncio
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FilePartialBlob
from adapters.storage.maintenance import FilesystemStorageMaintenance
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM
from tests.fakes.clock import StoppedClock

DIGEST = Digest.of(b"content")
LOCK = fcntl.flock


@pytest.fixture
def partial_blob(tmp_path: Path) -> Path:
    path = tmp_path / "drafts" / f"{UPSTREAM.fingerprint}-sha256-{DIGEST.encoded}"
    path.parent.mkdir()
    path.write_bytes(b"con")
    return path


@pytest.fixture
def before_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Something happens once, after a partial blob was opened and before it is locked."""

    def arrange(happening: Callable[[], object]) -> None:
        def flock(descriptor: int, operation: int) -> None:
            if pending:
                pending.pop()()
            LOCK(descriptor, operation)

        pending = [happening]
        monkeypatch.setattr(fcntl, "flock", flock)

    return arrange


Arrange = Callable[[Callable[[], object]], None]


def lease(folder: Path) -> FilePartialBlob | None:
    store = FilesystemContentStore(folder)
    found = asyncio.run(store.leases.lease(UPSTREAM, DIGEST))
    store.close()
    if found is None:
        return None
    assert isinstance(found, FileDownloadLease)
    found.partial_blob.file.close()
    return found.partial_blob


def test_a_removed_partial_blob_is_not_leased(tmp_path: Path, partial_blob: Path, before_lock: Arrange) -> None:
    before_lock(partial_blob.unlink)
    leased = lease(tmp_path)
    assert leased
    assert leased.present.beginning == 0
    assert partial_blob.exists()


def test_a_partial_blob_that_was_made_again_is_the_one_that_is_leased(
    tmp_path: Path, partial_blob: Path, before_lock: Arrange
) -> None:
    def replace() -> None:
        partial_blob.unlink()
        partial_blob.write_bytes(b"c")

    before_lock(replace)
    leased = lease(tmp_path)
    assert leased
    assert leased.present.beginning == 1


def test_a_partial_blob_that_became_content_is_not_leased(
    tmp_path: Path, partial_blob: Path, before_lock: Arrange
) -> None:
    def commit() -> None:
        place = tmp_path / "content" / "sha256" / DIGEST.encoded[:2] / DIGEST.encoded
        place.parent.mkdir(parents=True)
        partial_blob.rename(place)

    before_lock(commit)
    assert lease(tmp_path) is None
    assert not partial_blob.exists()


def test_content_that_was_stored_before_the_partial_blob_was_opened_leaves_none(
    tmp_path: Path, partial_blob: Path, before_lock: Arrange
) -> None:
    def commit_another() -> None:
        store = FilesystemContentStore(tmp_path)
        asyncio.run(store.put(DIGEST, b"content"))
        store.close()

    before_lock(commit_another)
    assert lease(tmp_path) is None
    assert not partial_blob.exists()


def test_maintenance_does_not_remove_a_file_that_replaced_the_abandoned_one(
    tmp_path: Path, partial_blob: Path, before_lock: Arrange
) -> None:
    def replace() -> None:
        partial_blob.unlink()
        partial_blob.write_bytes(b"new")

    before_lock(replace)
    maintenance = FilesystemStorageMaintenance(tmp_path, StoppedClock())
    assert asyncio.run(maintenance.remove_abandoned_partial_blobs()) == 0
    assert partial_blob.read_bytes() == b"new"
    maintenance.close()
