from collections import deque
from contextlib import ExitStack
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FollowedFilePartialBlob
from adapters.storage.maintenance import FilesystemStorageMaintenance
from domain.digest import Digest
from tests.adapters.storage.places import OTHER, UPSTREAM, line_of, process, tell
from tests.contracts.storage import append, unverified, verified
from tests.fakes.clock import StoppedClock

pytestmark = pytest.mark.slow

CONTENT = b"0123456789" * 300_000
DIGEST = Digest.of(CONTENT)
START = """
import asyncio, os, random, sys
from collections import deque
from pathlib import Path
from adapters.clock import SystemClock
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FollowedFilePartialBlob
from adapters.storage.maintenance import FilesystemStorageMaintenance
from adapters.storage.file_content_store import FilesystemContentStore
from domain.digest import Digest
from domain.byte_ranges import Span
from domain.span_set import SpanSet
from tests.adapters.storage.places import OTHER, UPSTREAM
from tests.contracts.storage import append

store = FilesystemContentStore(Path(sys.argv[1]))
content = b"0123456789" * 300_000
digest = Digest.of(content)
"""
FILL = """
async def main():
    lease = await store.leases.lease(UPSTREAM, digest)
    partial_blob = lease.partial_blob
    await append(partial_blob, deque([content[:1_000_000]]))
    print(partial_blob.present.beginning, flush=True)
    input()
    await append(partial_blob, deque([content[1_000_000:]]))
    print(await partial_blob.commit(), flush=True)
asyncio.run(main())
"""
RACE = """
async def main():
    print("ready", flush=True)
    input()
    leases = await asyncio.gather(*(store.leases.lease(UPSTREAM, digest) for _ in range(10)))
    print(sum(isinstance(lease, FileDownloadLease) for lease in leases), flush=True)
    input()
asyncio.run(main())
"""
TURMOIL = """
lots = random.Random(int(sys.argv[2]))
texts = [random.Random(number).randbytes(50_000) for number in range(3)]
maintenance = FilesystemStorageMaintenance(Path(sys.argv[1]), SystemClock())

async def fill(partial_blob, text, counts):
    assert await partial_blob.file.read(0, partial_blob.present.beginning) == text[:partial_blob.present.beginning]
    for start in range(partial_blob.present.beginning, len(text), 10_000):
        step = text[start:start + 10_000]
        if start % 10_000:
            step = text[start:start - start % 10_000 + 10_000]
        assert partial_blob.present.beginning == start
        await append(partial_blob, deque([step]))
        if lots.random() < 0.1:
            partial_blob.end(keep=lots.random() < 0.7)
            return
    counts["filled"] += partial_blob.present.beginning == len(text) and await partial_blob.commit()
    partial_blob.end(keep=True)

async def main():
    counts = {"filled": 0, "read": 0, "followed": 0}
    for _ in range(300):
        text = lots.choice(texts)
        digest, what = Digest.of(text), lots.random()
        lease = await store.leases.lease(lots.choice([UPSTREAM, OTHER]), digest)
        if isinstance(lease, FileDownloadLease):
            lease = lease.partial_blob
            await fill(lease, text, counts)
        elif isinstance(lease, FollowedFilePartialBlob):
            state = lease.look()
            assert await lease.file.read(0, state.present.beginning) == text[:state.present.beginning]
            assert not state.is_verified or state.present.beginning == len(text)
            counts["followed"] += 1
        elif stored := await store.open(digest):
            assert await stored.read() == text
            stored.file.close()
            counts["read"] += 1
        if lease:
            lease.file.close()
        if what < 0.2:
            await store.drop(digest)
        elif what < 0.3:
            await maintenance.remove_abandoned_partial_blobs()
        elif what < 0.4:
            await store.put(digest, text)
    print(counts, flush=True)
asyncio.run(main())
"""


async def test_a_killed_process_loses_its_lease_and_leaves_its_partial_blob(tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)
    with process(START + FILL, tmp_path) as running:
        assert line_of(running) == "1000000"
        followed = await store.leases.lease(UPSTREAM, DIGEST)
        assert isinstance(followed, FollowedFilePartialBlob)
        running.kill()
        running.wait()
    assert followed.look() == unverified(1_000_000)
    lease = await store.leases.lease(UPSTREAM, DIGEST)
    assert isinstance(lease, FileDownloadLease)
    partial_blob = lease.partial_blob
    assert partial_blob.present.beginning == 1_000_000
    await append(partial_blob, deque([CONTENT[1_000_000:]]))
    assert await partial_blob.commit()
    assert followed.look() == verified(len(CONTENT))
    partial_blob.file.close()
    followed.file.close()
    store.close()


async def test_another_process_sees_the_partial_blob_grow_until_it_is_complete(tmp_path: Path) -> None:
    store, maintenance = FilesystemContentStore(tmp_path), FilesystemStorageMaintenance(tmp_path, StoppedClock())
    with process(START + FILL, tmp_path) as running:
        assert line_of(running) == "1000000"
        followed = await store.leases.lease(UPSTREAM, DIGEST)
        assert isinstance(followed, FollowedFilePartialBlob)
        assert followed.look() == unverified(1_000_000)
        assert await maintenance.remove_abandoned_partial_blobs() == 0
        tell(running)
        assert line_of(running) == "True"
    assert followed.look() == verified(len(CONTENT))
    assert await followed.file.read(0, len(CONTENT)) == CONTENT
    assert await maintenance.contents() == {DIGEST: len(CONTENT)}
    followed.file.close()
    store.close()
    maintenance.close()


async def test_a_process_that_downloads_from_another_upstream_delays_no_other(tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)
    with process(START + FILL, tmp_path) as running:
        assert line_of(running) == "1000000"
        lease = await store.leases.lease(OTHER, DIGEST)
        assert isinstance(lease, FileDownloadLease)
        partial_blob = lease.partial_blob
        assert partial_blob.present.beginning == 0
        await append(partial_blob, deque([CONTENT]))
        assert await partial_blob.commit()
        partial_blob.file.close()
        tell(running)
        # Its own download, which is right too, ends well.
        assert line_of(running) == "True"
        assert running.wait() == 0
    stored = await store.open(DIGEST)
    assert stored
    assert await stored.read() == CONTENT
    stored.file.close()
    assert list((tmp_path / "drafts").iterdir()) == []
    store.close()


async def test_the_partial_blob_of_one_upstream_is_not_continued_from_another(tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)
    with process(START + FILL, tmp_path) as running:
        assert line_of(running) == "1000000"
        running.kill()
        running.wait()
    sizes = []
    for upstream in (OTHER, UPSTREAM):
        lease = await store.leases.lease(upstream, DIGEST)
        assert isinstance(lease, FileDownloadLease)
        partial_blob = lease.partial_blob
        sizes.append(partial_blob.present.beginning)
        partial_blob.file.close()
    assert sizes == [0, 1_000_000]
    store.close()


def test_of_many_processes_one_gets_the_lease(tmp_path: Path) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(process(START + RACE, tmp_path)) for _ in range(6)]
        assert [line_of(racer) for racer in racers] == ["ready"] * 6
        for racer in racers:
            tell(racer)
        assert sum(int(line_of(racer)) for racer in racers) == 1


def test_concurrent_processes_store_only_right_content(tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(process(START + TURMOIL, tmp_path, number)) for number in range(4)]
        said = [line_of(one) for one in running]
        assert [one.wait() for one in running] == [0] * 4
    assert all(said)
    for path in (tmp_path / "content").glob("*/*/*"):
        assert Digest.of(path.read_bytes()).encoded == path.name
