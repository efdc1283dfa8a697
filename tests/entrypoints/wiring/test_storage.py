"""The folder of the cache before any worker starts."""

from collections import deque
from pathlib import Path

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease, FilePartialBlob
from domain.digest import Digest
from entrypoints.wiring.storage import sweep_storage
from tests.adapters.storage.places import UPSTREAM
from tests.entrypoints.environment import Load


async def test_a_start_removes_the_drafts_that_nobody_fills(load: Load, tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)

    async def leased(content: bytes) -> FilePartialBlob:
        lease = await store.leases.lease(UPSTREAM, Digest.of(content))
        assert isinstance(lease, FileDownloadLease)
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([content[:2]]))
        return partial_blob

    left, busy = await leased(b"left"), await leased(b"busy")
    left.end(keep=True)
    left.file.close()
    sweep_storage(load(CACHE_DIR=str(tmp_path)))
    assert [file.name for file in (tmp_path / "drafts").iterdir()] == [
        f"{UPSTREAM.fingerprint}-sha256-{Digest.of(b'busy').encoded}"
    ]
    busy.end(keep=False)
    busy.file.close()
    store.close()


def test_without_a_cache_there_is_nothing_to_sweep(load: Load) -> None:
    sweep_storage(load(CACHE_DIR="off"))
