import asyncio
import itertools
import os
import stat
import tempfile
from collections import deque
from pathlib import Path

import pytest

from adapters.storage import file_partial_blob
from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FilePartialBlob, FollowedFilePartialBlob
from application.ports.content import StorageFailed, StorageRefused
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM, line_of, open_descriptors, opened, process
from tests.contracts.storage import append, verified

CONTENT = b"a layer " * 1000
DIGEST = Digest.of(CONTENT)


async def leased(store: FilesystemContentStore, digest: Digest = DIGEST) -> FilePartialBlob:
    lease = await store.leases.lease(UPSTREAM, digest)
    assert isinstance(lease, FileDownloadLease)
    return lease.partial_blob


async def read(store: FilesystemContentStore) -> bytes | None:
    stored = await store.open(DIGEST)
    if stored is None:
        return None
    content = await stored.read()
    stored.file.close()
    return content


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def place(folder: Path, digest: Digest = DIGEST) -> Path:
    return folder / "content" / digest.algorithm / digest.encoded[:2] / digest.encoded


def partial_blob_place(folder: Path) -> Path:
    return folder / "drafts" / f"{UPSTREAM.fingerprint}-sha256-{DIGEST.encoded}"


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    FilesystemContentStore(tmp_path / "cache").close()
    assert not (tmp_path / "cache").exists()


async def test_files_are_in_their_places_and_private(tmp_path: Path) -> None:
    async with opened(tmp_path / "deep" / "cache") as store:
        folder = tmp_path / "deep" / "cache"
        partial_blob = await leased(store)
        assert mode(partial_blob_place(folder)) == 0o600
        await append(partial_blob, deque([CONTENT]))
        await partial_blob.commit()
        partial_blob.file.close()
        await store.put(Digest.of(b"small", "sha512"), b"small")
        assert [mode(place(folder)), mode(place(folder, Digest.of(b"small", "sha512")))] == [0o444, 0o444]
        assert [mode(folder / name) for name in ("content", "drafts", "temporary")] == [0o700] * 3
        assert [*(folder / "drafts").iterdir(), *(folder / "temporary").iterdir()] == []


@pytest.mark.slow
async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.open(DIGEST)
        before = open_descriptors()
        for keep in (True, False):
            partial_blob, followed = await leased(store), await store.leases.lease(UPSTREAM, DIGEST)
            assert isinstance(followed, FollowedFilePartialBlob)
            await append(partial_blob, deque([CONTENT[:7]]))
            partial_blob.end(keep=keep)
            partial_blob.file.close()
            followed.file.close()
        await store.put(DIGEST, CONTENT)
        assert await store.leases.lease(UPSTREAM, DIGEST) is None
        assert await read(store) == CONTENT
        await store.drop(DIGEST)
        assert open_descriptors() == before


async def test_truncated_content_is_stored_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put(DIGEST, CONTENT)
        os.truncate(place(tmp_path), 10)
        assert await read(store) == CONTENT[:10]
        await store.put(DIGEST, CONTENT)
        assert await read(store) == CONTENT


async def test_a_verified_partial_blob_becomes_content(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob_place(tmp_path).parent.mkdir()
        partial_blob_place(tmp_path).write_bytes(CONTENT)
        partial_blob_place(tmp_path).chmod(0o444)
        assert await store.leases.lease(UPSTREAM, DIGEST) is None
        assert await read(store) == CONTENT
        assert not partial_blob_place(tmp_path).exists()


UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
from adapters.storage.file_content_store import FilesystemContentStore
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM
folder, digest = Path(sys.argv[1]), Digest.of(b"whole")
os.setuid(65534)
(folder / "docker-image-proxy" / "drafts").mkdir(0o700, parents=True)
partial_blob = folder / "docker-image-proxy" / "drafts" / f"{UPSTREAM.fingerprint}-sha256-{digest.encoded}"
partial_blob.write_bytes(b"whole")
partial_blob.chmod(0o444)
store = FilesystemContentStore(folder)
assert asyncio.run(store.leases.lease(UPSTREAM, digest)) is None
assert asyncio.run(store.open(digest))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; for all others it is the test above")
def test_a_verified_partial_blob_becomes_content_for_a_user_who_cannot_write_to_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        with process(UNPRIVILEGED, folder) as running:
            assert running.wait() == 0


async def test_a_partial_blob_that_was_removed_does_not_replace_another(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        partial_blob_place(tmp_path).unlink()
        other = await leased(store)
        await append(other, deque([b"an"]))
        await append(partial_blob, deque([CONTENT]))
        assert await partial_blob.commit()
        assert await read(store) is None
        partial_blob.end(keep=False)
        assert partial_blob_place(tmp_path).read_bytes() == b"an"
        partial_blob.file.close()
        other.file.close()


async def test_content_that_cannot_be_stored_is_still_verified(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob, followed = await leased(store), await store.leases.lease(UPSTREAM, DIGEST)
        assert isinstance(followed, FollowedFilePartialBlob)
        (tmp_path / "content").write_bytes(b"in the way")
        await append(partial_blob, deque([CONTENT]))
        assert await partial_blob.commit()
        assert followed.look() == verified(len(CONTENT))
        assert await partial_blob.file.read(0, 8) == b"a layer "
        assert not partial_blob_place(tmp_path).exists()
        with pytest.raises(StorageRefused):
            await store.put(DIGEST, CONTENT)
        partial_blob.file.close()
        followed.file.close()


@pytest.mark.slow
async def test_a_cancelled_request_keeps_no_lease(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put(Digest.of(b"other"), b"other")
        before = open_descriptors()
        for work in (lambda: store.leases.lease(UPSTREAM, DIGEST), lambda: store.open(Digest.of(b"other"))):
            task: asyncio.Task[object] = asyncio.create_task(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert open_descriptors() == before
        (await leased(store)).file.close()


async def test_a_cancelled_append_leaves_a_partial_blob_that_matches_its_size(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        content = os.urandom(1 << 24)
        partial_blob = await leased(store, Digest.of(content))
        task = asyncio.create_task(append(partial_blob, deque([content[: 1 << 23]])))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await append(partial_blob, deque([content[partial_blob.present.beginning :]]))
        assert await partial_blob.commit()
        partial_blob.file.close()


async def test_every_append_writes_something_even_on_a_slow_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn may be over before it has begun: threads wait for their processor, whole machines are paused."""

    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        pieces = deque([CONTENT[:3], CONTENT[3:]])
        clock = itertools.count()
        monkeypatch.setattr(file_partial_blob.time, "monotonic", lambda: float(next(clock)))
        while pieces:
            before = partial_blob.present.beginning
            await append(partial_blob, pieces)
            assert partial_blob.present.beginning > before
        assert await partial_blob.commit()
        partial_blob.file.close()


async def test_without_a_folder_nothing_is_found_or_stored(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with opened(tmp_path / "file" / "cache") as store:
        assert await store.open(DIGEST) is None
        assert await store.drop(DIGEST) == 0
        for refused in (store.put(DIGEST, CONTENT), store.leases.lease(UPSTREAM, DIGEST)):
            with pytest.raises(StorageFailed, match="Not a directory"):
                await refused


async def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "cache") as store:
        await store.put(DIGEST, CONTENT)
        (tmp_path / "cache").rename(tmp_path / "gone")
        assert await read(store) is None
        partial_blob = await leased(store)
        await append(partial_blob, deque([CONTENT]))
        assert await partial_blob.commit()
        partial_blob.file.close()
        assert await read(store) == CONTENT


async def test_a_link_in_the_place_of_a_partial_blob_is_not_followed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob_place(tmp_path).parent.mkdir()
        (tmp_path / "precious").write_bytes(b"precious")
        partial_blob_place(tmp_path).symlink_to(tmp_path / "precious")
        with pytest.raises(StorageRefused):
            await store.leases.lease(UPSTREAM, DIGEST)
        assert (tmp_path / "precious").read_bytes() == b"precious"


NO_DESCRIPTORS = """
import asyncio, os, resource, sys
from pathlib import Path
from adapters.storage.file_content_store import FilesystemContentStore
from application.ports.content import StorageFailed
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM
store, digest = FilesystemContentStore(Path(sys.argv[1])), Digest.of(b"")

async def refused(work):
    try:
        await work
    except StorageFailed as error:
        return str(error)

async def main():
    await store.open(digest)  # its threads run
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    said = [await refused(store.leases.lease(UPSTREAM, digest)), await refused(store.put(digest, b""))]
    for descriptor in held:
        os.close(descriptor)
    print(said, flush=True)
asyncio.run(main())
"""


def test_too_few_descriptors_are_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    with process(NO_DESCRIPTORS, tmp_path) as running:
        said = line_of(running)
        assert running.wait() == 0
    refusals = ["a partial blob cannot be opened: Too many open files", "content cannot be kept: Too many open files"]
    assert said == str(refusals)
