"""A process is killed while it writes with gaps, or while it waits for bytes."""

import random
from collections import deque
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FilePartialBlob, FollowedFilePartialBlob
from domain.byte_ranges import Span
from domain.digest import Digest
from domain.span_set import SpanSet
from tests.adapters.storage.places import UPSTREAM, line_of, process

pytestmark = pytest.mark.slow

# No part looks like another one, and a byte that was not written is 0, which does not occur.
CONTENT = random.Random(1).randbytes(8_000_000).replace(b"\0", b"\1")  # noqa: S311 - no secret
DIGEST = Digest.of(CONTENT)
START = """
import asyncio, random, sys
from collections import deque
from pathlib import Path
from adapters.storage.file_content_store import FilesystemContentStore
from domain.byte_ranges import Span
from domain.digest import Digest
from domain.span_set import SpanSet
from tests.adapters.storage.places import UPSTREAM

store = FilesystemContentStore(Path(sys.argv[1]))
content = random.Random(1).randbytes(8_000_000).replace(b"\\0", b"\\1")
digest = Digest.of(content)
"""
FILL = """
async def fill(partial_blob, parts):
    for part in parts:
        for start in range(part.start, part.stop, 1000):
            await partial_blob.write(start, deque([content[start:min(start + 1000, part.stop)]]))

async def main():
    partial_blob = (await store.leases.lease(UPSTREAM, digest)).partial_blob
    partial_blob.total = len(content)
    gaps = partial_blob.present.missing(Span(0, len(content)))
    parts = [Span(at, min(at + 200_000, gap.stop)) for gap in gaps for at in range(gap.start, gap.stop, 200_000)]
    random.Random(int(sys.argv[2])).shuffle(parts)
    print("fills", flush=True)
    await asyncio.gather(*(fill(partial_blob, parts[number::4]) for number in range(4)))
    print(await partial_blob.commit(), flush=True)
asyncio.run(main())
"""
WANT = """
async def main():
    followed = await store.leases.lease(UPSTREAM, digest)
    followed.want(SpanSet.of([Span(5, 50), Span(70, 80)]))
    print("wants", flush=True)
    input()
asyncio.run(main())
"""


async def leased(store: FilesystemContentStore) -> FileDownloadLease:
    lease = await store.leases.lease(UPSTREAM, DIGEST)
    assert isinstance(lease, FileDownloadLease)
    return lease


async def is_right(partial_blob: FilePartialBlob, present: SpanSet) -> bool:
    return all(
        [await partial_blob.file.read(span.start, span.stop) == CONTENT[span.start : span.stop] for span in present]
    )


async def test_after_a_kill_no_byte_is_present_that_was_not_written(tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)
    kept = SpanSet()
    for attempt in range(6):
        with process(START + FILL, tmp_path, attempt) as running:
            assert line_of(running) == "fills"
            followed = await store.leases.lease(UPSTREAM, DIGEST)
            assert isinstance(followed, FollowedFilePartialBlob)
            while (seen := followed.look()).present.length < kept.length + 200_000 * attempt:
                assert running.poll() is None
            running.kill()
            running.wait()
        lease = await leased(store)
        present = lease.partial_blob.present
        if followed.look().is_discarded:
            # The process was killed while it made the map, so nothing said which bytes were present.
            assert not kept
            assert seen.total is None
            assert not present
        else:
            # What was present for a follower, or for the lease before, stays present.
            assert all(present.covers(span) for spans in (kept, seen.present) for span in spans)
            assert present == followed.look().present
        assert await is_right(lease.partial_blob, present)
        assert lease.partial_blob.total in {None, len(CONTENT)}
        kept = present
        for file in (lease.partial_blob.file, followed.file):
            file.close()
    assert len(kept.spans) > 1
    lease = await leased(store)
    lease.partial_blob.total = len(CONTENT)
    for gap in lease.partial_blob.present.missing(Span(0, len(CONTENT))):
        await lease.partial_blob.write(gap.start, deque([CONTENT[gap.start : gap.stop]]))
    assert await lease.partial_blob.commit()
    lease.partial_blob.file.close()
    store.close()


async def test_a_follower_of_another_process_reads_only_right_bytes(tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)
    with process(START + FILL, tmp_path, 7) as running:
        assert line_of(running) == "fills"
        followed = await store.leases.lease(UPSTREAM, DIGEST)
        assert isinstance(followed, FollowedFilePartialBlob)
        before, looks = SpanSet(), 0
        while not (state := followed.look()).is_verified:
            assert not state.is_discarded
            assert all(state.present.covers(span) for span in before)
            for span in state.present:
                assert await followed.file.read(span.start, span.stop) == CONTENT[span.start : span.stop]
            before = state.present
            looks += 1
        assert line_of(running) == "True"
    assert looks
    assert state.present == SpanSet.up_to(len(CONTENT))
    followed.file.close()
    store.close()


async def test_the_wants_of_a_process_end_with_it(tmp_path: Path) -> None:
    store = FilesystemContentStore(tmp_path)
    lease = await leased(store)
    with process(START + WANT, tmp_path) as one, process(START + WANT, tmp_path) as other:
        assert [line_of(one), line_of(other)] == ["wants", "wants"]
        assert lease.wanted() == SpanSet.of([Span(5, 50), Span(70, 80)])
        one.kill()
        one.wait()
        assert lease.wanted() == SpanSet.of([Span(5, 50), Span(70, 80)])
        other.kill()
        other.wait()
        assert not lease.wanted()
    lease.partial_blob.file.close()
    store.close()
