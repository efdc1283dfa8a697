"""Partial blobs in files: gaps, hashing, and what is left when a step fails."""

import asyncio
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from adapters.storage import file_partial_blob, running_hash
from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FilePartialBlob, FollowedFilePartialBlob
from adapters.storage.open_files import portions, write
from adapters.storage.present_map import MAP_BYTES, PresentMap
from application.ports.content import StorageFailed, StorageFull
from domain.byte_ranges import Span
from domain.digest import Bytes, Digest, DigestCheck
from domain.span_set import SpanSet
from tests.adapters.storage.conftest import HeldHash
from tests.adapters.storage.places import UPSTREAM, opened, small_disk
from tests.contracts.storage import append, unverified

MIB = 1 << 20
CONTENT = os.urandom(6 * MIB + 7)
DIGEST = Digest.of(CONTENT)


async def leased(store: FilesystemContentStore) -> FilePartialBlob:
    lease = await store.leases.lease(UPSTREAM, DIGEST)
    assert isinstance(lease, FileDownloadLease)
    lease.partial_blob.total = len(CONTENT)
    return lease.partial_blob


async def followed(store: FilesystemContentStore) -> FollowedFilePartialBlob:
    found = await store.leases.lease(UPSTREAM, DIGEST)
    assert isinstance(found, FollowedFilePartialBlob)
    return found


async def written(partial_blob: FilePartialBlob, start: int, stop: int) -> None:
    pieces: deque[Bytes] = deque([CONTENT[start:stop]])
    while pieces:
        start += await partial_blob.write(start, pieces)


def place(folder: Path) -> Path:
    return folder / "drafts" / f"{UPSTREAM.fingerprint}-sha256-{DIGEST.encoded}"


class Hashed:
    """Which bytes were read again to hash them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spans = SpanSet()
        self.before_read: Callable[[], object] = lambda: None

        def counted(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
            self.before_read()
            self.spans = self.spans.plus(Span(start, stop))
            return portions(descriptor, start, stop)

        monkeypatch.setattr(running_hash, "portions", counted)


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> Hashed:
    return Hashed(monkeypatch)


async def test_bytes_in_order_are_hashed_without_reading_them_again(tmp_path: Path, read_again: Hashed) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        for start in range(0, len(CONTENT), MIB):
            await append(partial_blob, deque([CONTENT[start : start + MIB]]))
        assert await partial_blob.commit()
        assert not read_again.spans
        partial_blob.file.close()


async def test_bytes_after_a_gap_are_read_once_when_the_gap_is_filled(tmp_path: Path, read_again: Hashed) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, 0, MIB)
        await written(partial_blob, 2 * MIB, len(CONTENT))
        assert not read_again.spans
        await written(partial_blob, MIB, 2 * MIB)
        assert await partial_blob.commit()
        assert read_again.spans == SpanSet.of([Span(2 * MIB, len(CONTENT))])
        partial_blob.file.close()


@pytest.mark.parametrize("gap", [0, 2 * MIB])
async def test_a_lease_reads_no_content(tmp_path: Path, read_again: Hashed, gap: int) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, gap, len(CONTENT))
        partial_blob.end(keep=True)
        partial_blob.file.close()
        again = await leased(store)
        assert not read_again.spans
        await written(again, 0, gap)
        assert await again.commit()
        again.file.close()


async def test_new_bytes_are_present_before_they_are_hashed(tmp_path: Path, read_again: Hashed) -> None:
    async with opened(tmp_path) as store:
        partial_blob, follower = await leased(store), await followed(store)
        await written(partial_blob, MIB, len(CONTENT))
        seen = []
        read_again.before_read = lambda: seen.append(
            (partial_blob.present.beginning, follower.look().present.beginning)
        )
        await written(partial_blob, 0, MIB)
        assert set(seen) == {(len(CONTENT), len(CONTENT))}
        partial_blob.file.close()
        follower.file.close()


async def test_bytes_that_arrive_while_another_thread_hashes_are_hashed_by_it(
    tmp_path: Path, read_again: Hashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_partial_blob, "_TURN_SECONDS", 60.0)
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, MIB, 2 * MIB)
        hashing, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            hashing.set()
            assert go_on.wait(30)

        read_again.before_read = wait
        first = asyncio.create_task(written(partial_blob, 0, MIB))
        assert await asyncio.to_thread(hashing.wait, 30)
        await written(partial_blob, 2 * MIB, len(CONTENT))
        assert not first.done()
        go_on.set()
        await first
        read_again.before_read = lambda: pytest.fail("a byte was not hashed")
        assert await partial_blob.commit()
        partial_blob.file.close()


async def test_a_turn_of_hashing_ends_and_the_commit_hashes_the_rest(
    tmp_path: Path, read_again: Hashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_partial_blob, "_TURN_SECONDS", 0.0)
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, MIB, len(CONTENT))
        await written(partial_blob, 0, MIB)
        assert read_again.spans.length < 2 * MIB
        assert await partial_blob.commit()
        assert read_again.spans == SpanSet.of([Span(MIB, len(CONTENT))])
        partial_blob.file.close()


async def test_the_end_of_a_lease_waits_for_a_running_step_and_stops_the_hashing(
    tmp_path: Path, read_again: Hashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the step would use the descriptor after the file was closed."""
    monkeypatch.setattr(file_partial_blob, "_TURN_SECONDS", 60.0)
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, MIB, len(CONTENT))
        hashing, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            hashing.set()
            assert go_on.wait(30)

        read_again.before_read = wait
        writing = asyncio.create_task(written(partial_blob, 0, MIB))
        assert await asyncio.to_thread(hashing.wait, 30)
        ending = asyncio.create_task(asyncio.to_thread(partial_blob.end, keep=True))
        await asyncio.wait([ending], timeout=0.2)
        assert not ending.done()
        go_on.set()
        await asyncio.gather(writing, ending)
        assert read_again.spans.length == MIB
        partial_blob.file.close()


@pytest.mark.parametrize("bytes_of_map", [None, 0, 3])
async def test_a_marked_file_without_a_valid_map_is_replaced(tmp_path: Path, bytes_of_map: int | None) -> None:
    """The process was killed after the mark. Followers keep the old file, and see that it is discarded."""
    async with opened(tmp_path) as store:
        partial_blob, follower = await leased(store), await followed(store)
        await written(partial_blob, 0, 1000)
        assert follower.look() == unverified(1000)
        place(tmp_path).chmod(0o1600)
        if bytes_of_map is not None:
            os.truncate(place(tmp_path), len(CONTENT) + MAP_BYTES)
            os.pwrite(partial_blob.file.descriptor, b"present1"[:bytes_of_map], len(CONTENT))
        assert follower.look() == unverified(1000)
        partial_blob.file.close()
        again = await leased(store)
        assert not again.present
        assert follower.look().is_discarded
        await written(again, 0, len(CONTENT))
        assert await again.commit()
        again.file.close()
        follower.file.close()


async def test_a_partial_blob_of_an_older_version_continues_and_gets_gaps(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        place(tmp_path).parent.mkdir()
        place(tmp_path).write_bytes(CONTENT[:1000])
        place(tmp_path).chmod(0o600)
        partial_blob, follower = await leased(store), await followed(store)
        assert partial_blob.present == follower.look().present == SpanSet.up_to(1000)
        await written(partial_blob, MIB, len(CONTENT))
        assert follower.look().present == SpanSet.of([Span(0, 1000), Span(MIB, len(CONTENT))])
        await written(partial_blob, 1000, MIB)
        assert await partial_blob.commit()
        partial_blob.file.close()
        follower.file.close()


async def test_a_follower_that_looks_between_the_steps_of_a_commit_is_not_misled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        partial_blob, follower = await leased(store), await followed(store)
        await written(partial_blob, MIB, len(CONTENT))
        await written(partial_blob, 0, MIB)
        seen = [follower.look()]

        def looks(step: str) -> None:
            run = getattr(os, step)

            def looked(*arguments: object) -> None:
                run(*arguments)
                seen.append(follower.look())

            monkeypatch.setattr(os, step, looked)

        looks("ftruncate")
        looks("fchmod")
        assert await partial_blob.commit()
        assert [state.present for state in seen] == 3 * [SpanSet.up_to(len(CONTENT))]
        assert [state.total for state in seen] == 3 * [len(CONTENT)]
        assert [state.is_verified for state in seen] == [False, False, True]
        assert not any(state.is_discarded for state in seen)
        partial_blob.file.close()
        follower.file.close()


async def test_a_follower_that_looks_while_the_map_is_made_is_not_misled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        partial_blob, follower = await leased(store), await followed(store)
        await written(partial_blob, 0, 1000)
        fstat, begin = os.fstat, PresentMap._begin

        def begun_meanwhile(descriptor: int) -> os.stat_result:
            """The size of a file that has just got a map, with the mode that it had before."""
            monkeypatch.setattr(os, "fstat", fstat)
            before = fstat(descriptor)
            begin(PresentMap(partial_blob.file.descriptor, len(CONTENT)))
            return os.stat_result((before.st_mode, *fstat(descriptor)[1:]))

        monkeypatch.setattr(os, "fstat", begun_meanwhile)
        assert follower.look().present.beginning in {0, 1000}
        partial_blob.file.close()
        follower.file.close()


async def test_what_a_follower_has_seen_stays_present_when_the_map_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other connection writes its first bytes in the middle of a write to the beginning."""
    async with opened(tmp_path) as store:
        partial_blob, follower = await leased(store), await followed(store)
        half_written, go_on = threading.Event(), threading.Event()

        def write_half(descriptor: int, batch: Sequence[Bytes], offset: int) -> None:
            monkeypatch.setattr(file_partial_blob, "write", write)
            write(descriptor, [batch[0][:1000]], offset)
            half_written.set()
            assert go_on.wait(30)
            write(descriptor, [batch[0][1000:]], offset + 1000)

        monkeypatch.setattr(file_partial_blob, "write", write_half)
        beginning = asyncio.create_task(written(partial_blob, 0, MIB))
        assert await asyncio.to_thread(half_written.wait, 30)
        assert follower.look() == unverified(1000)
        other = asyncio.create_task(written(partial_blob, 2 * MIB, 3 * MIB))
        await asyncio.wait([other], timeout=0.2)
        assert follower.look() == unverified(1000)
        go_on.set()
        await asyncio.gather(beginning, other)
        assert follower.look().present == SpanSet.of([Span(0, MIB), Span(2 * MIB, 3 * MIB)])
        partial_blob.file.close()
        follower.file.close()


async def test_a_write_after_the_end_of_the_blob_does_not_change_the_map(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, MIB, len(CONTENT))
        pieces: deque[Bytes] = deque([b"more"])
        with pytest.raises(StorageFailed):
            await partial_blob.write(len(CONTENT), pieces)
        assert pieces == deque([b"more"])
        partial_blob.end(keep=True)
        partial_blob.file.close()
        again = await leased(store)
        assert again.present == SpanSet.of([Span(MIB, len(CONTENT))])
        again.file.close()


async def test_a_write_of_many_bytes_waits_for_those_that_are_about_to_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        pieces: deque[Bytes] = deque([CONTENT[:MIB]])
        coming = [CONTENT[MIB : 2 * MIB], CONTENT[2 * MIB : 2 * MIB + 100]]
        asked = [0, 0, 0, 0]  # how often, by the number of pieces that are still to come

        def expects_more() -> bool:
            asked[len(coming)] += 1
            if coming and asked[len(coming)] > 1:
                pieces.append(coming.pop(0))
            return True

        assert await partial_blob.write(0, pieces, expects_more) == 2 * MIB + 100
        assert asked == [0, 2, 2, 0], "it did not wait after few bytes"
        assert partial_blob.present == SpanSet.up_to(2 * MIB + 100)
        partial_blob.file.close()


async def test_a_write_does_not_wait_when_nothing_comes(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        asked = []
        assert await partial_blob.write(0, deque([CONTENT[:MIB]]), lambda: bool(asked.append(True))) == MIB
        assert asked == [True]
        partial_blob.file.close()


async def test_many_bytes_are_announced_and_followed_by_others_before_they_are_hashed(
    tmp_path: Path, held_hash: HeldHash
) -> None:
    """Hashing takes longer than writing, and another thread does it."""
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        pieces: deque[Bytes] = deque([CONTENT[:MIB], CONTENT[MIB : 2 * MIB]])
        announced, both = list[int](), threading.Event()

        def has_grown() -> None:
            announced.append(partial_blob.present.length)
            if len(announced) == 2:
                both.set()

        writing = asyncio.create_task(partial_blob.write(0, pieces, has_grown=has_grown))
        assert await asyncio.to_thread(held_hash.has_begun.wait, 30)
        assert await asyncio.to_thread(both.wait, 30)
        assert announced == [MIB, 2 * MIB]
        assert not writing.done(), "a write returns when what it has written is hashed"
        held_hash.go_on.set()
        assert await writing == 2 * MIB
        partial_blob.file.close()


async def test_a_write_fails_if_the_thread_that_hashes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)

        def fails(_check: DigestCheck, _piece: Bytes) -> None:
            raise OSError(errno.EIO, "cannot be read")

        monkeypatch.setattr(DigestCheck, "update", fails)
        with pytest.raises(StorageFailed, match="cannot be read"):
            await partial_blob.write(0, deque([CONTENT[:MIB]]))
        monkeypatch.undo()
        await written(partial_blob, MIB, len(CONTENT))
        assert await partial_blob.commit(), "the bytes that were written are hashed later"
        partial_blob.file.close()


async def test_few_bytes_are_not_announced(tmp_path: Path) -> None:
    """The return of the call tells the same, nearly at once."""
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await partial_blob.write(0, deque([CONTENT[:1000]]), has_grown=lambda: pytest.fail("announced"))
        partial_blob.file.close()


async def test_a_gap_needs_a_known_length(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob, follower = await leased(store), await followed(store)
        partial_blob.total = None
        with pytest.raises(StorageFailed, match="the length of the blob is not known"):
            await written(partial_blob, 10, 20)
        assert follower.look() == unverified(0)
        partial_blob.file.close()
        follower.file.close()


async def test_a_file_that_became_shorter_does_not_become_content(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        partial_blob = await leased(store)
        await written(partial_blob, 0, len(CONTENT))
        partial_blob.end(keep=True)
        partial_blob.file.close()
        again = await leased(store)
        os.truncate(place(tmp_path), 3 * MIB)
        with pytest.raises(StorageFailed, match="shorter"):
            await again.commit()
        again.file.close()
        assert await store.open(DIGEST) is None


def test_a_gap_on_a_full_disk_can_be_repeated(tmp_path: Path) -> None:
    content = os.urandom(300_000)

    async def go(folder: Path) -> None:
        store = FilesystemContentStore(folder)
        lease = await store.leases.lease(UPSTREAM, Digest.of(content))
        follower = await store.leases.lease(UPSTREAM, Digest.of(content))
        assert isinstance(lease, FileDownloadLease)
        assert isinstance(follower, FollowedFilePartialBlob)
        partial_blob = lease.partial_blob
        partial_blob.total = len(content)
        await partial_blob.write(0, deque([content[:1000]]))
        ballast = folder / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(2 * MIB))
        assert follower.look() == unverified(1000)
        pieces: deque[Bytes] = deque([content[200_000:]])
        for _ in range(2):
            with pytest.raises(StorageFull):
                await partial_blob.write(200_000, pieces)
            assert b"".join(pieces) == content[200_000:]
            assert partial_blob.present == follower.look().present == SpanSet.up_to(1000)
        ballast.unlink()
        await partial_blob.write(200_000, pieces)
        assert partial_blob.present == follower.look().present == SpanSet.of([Span(0, 1000), Span(200_000, 300_000)])
        await partial_blob.write(1000, deque([content[1000:200_000]]))
        assert await partial_blob.commit()
        partial_blob.file.close()
        follower.file.close()
        store.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))
