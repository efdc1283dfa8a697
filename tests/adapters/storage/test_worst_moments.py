"""What others do between two steps of ours."""

import asyncio
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.storage.drafts import FileDraft
from adapters.storage.filesystem_keeper import FilesystemStorageKeeper
from adapters.storage.filesystem_store import FilesystemContentStore
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM
from tests.fakes.clock import StoppedClock

DIGEST = Digest.of(b"content")
LOCK = fcntl.flock


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "drafts" / f"{UPSTREAM.fingerprint}-sha256-{DIGEST.encoded}"
    path.parent.mkdir()
    path.write_bytes(b"con")
    return path


@pytest.fixture
def before_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Something happens once, after a draft was opened and before it is locked."""

    def arrange(happening: Callable[[], object]) -> None:
        def flock(descriptor: int, operation: int) -> None:
            if pending:
                pending.pop()()
            LOCK(descriptor, operation)

        pending = [happening]
        monkeypatch.setattr(fcntl, "flock", flock)

    return arrange


Arrange = Callable[[Callable[[], object]], None]


def lease(folder: Path) -> FileDraft | None:
    store = FilesystemContentStore(folder)
    draft = asyncio.run(store.lease(UPSTREAM, DIGEST))
    assert draft is None or isinstance(draft, FileDraft)
    if draft:
        draft.file.close()
    store.close()
    return draft


def test_a_draft_that_was_swept_is_not_leased(tmp_path: Path, draft: Path, before_lock: Arrange) -> None:
    before_lock(draft.unlink)
    leased = lease(tmp_path)
    assert leased
    assert leased.size == 0
    assert draft.exists()


def test_a_draft_that_was_made_anew_is_the_one_that_is_leased(
    tmp_path: Path, draft: Path, before_lock: Arrange
) -> None:
    def replace() -> None:
        draft.unlink()
        draft.write_bytes(b"c")

    before_lock(replace)
    leased = lease(tmp_path)
    assert leased
    assert leased.size == 1


def test_a_draft_that_became_content_is_not_leased(tmp_path: Path, draft: Path, before_lock: Arrange) -> None:
    def commit() -> None:
        place = tmp_path / "content" / "sha256" / DIGEST.encoded[:2] / DIGEST.encoded
        place.parent.mkdir(parents=True)
        draft.rename(place)

    before_lock(commit)
    assert lease(tmp_path) is None
    assert not draft.exists()


def test_content_that_was_made_before_the_draft_was_opened_leaves_no_draft(
    tmp_path: Path, draft: Path, before_lock: Arrange
) -> None:
    def commit_another() -> None:
        store = FilesystemContentStore(tmp_path)
        asyncio.run(store.put(DIGEST, b"content"))
        store.close()

    before_lock(commit_another)
    assert lease(tmp_path) is None
    assert not draft.exists()


def test_the_sweeper_leaves_alone_what_came_after_its_look(tmp_path: Path, draft: Path, before_lock: Arrange) -> None:
    def replace() -> None:
        draft.unlink()
        draft.write_bytes(b"new")

    before_lock(replace)
    keeper = FilesystemStorageKeeper(tmp_path, StoppedClock())
    assert asyncio.run(keeper.sweep_drafts()) == 0
    assert draft.read_bytes() == b"new"
    keeper.close()
