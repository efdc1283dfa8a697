"""The contract of DownloadLeases and of its partial blobs."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.ports.content import StorageRefused
from application.ports.lease import FollowedPartialBlob
from domain.digest import Digest
from tests.contracts.storage import (
    HUB,
    KINDS,
    QUAY,
    Worker,
    append,
    by_two_workers,
    content_of,
    discarded,
    followed_by,
    lease_of,
    partial_blob_of,
    two_workers,
    unverified,
    verified,
)

CONTENT = b"a layer " * 1000
DIGEST = Digest.of(CONTENT)


@by_two_workers
async def test_an_empty_partial_blob_of_empty_content_is_right(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, Digest.of(b""))
    assert await partial_blob.commit()
    partial_blob.file.close()
    assert await content_of(other, Digest.of(b"")) == b""


@by_two_workers
async def test_a_partial_blob_is_not_content_before_its_commit(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    await append(partial_blob, deque([CONTENT]))
    assert await content_of(other, DIGEST) is None
    assert await partial_blob.commit()
    assert await content_of(other, DIGEST) == CONTENT
    assert await other.leases.lease(HUB, DIGEST) is await one.leases.lease(HUB, DIGEST) is None
    assert await partial_blob.file.read(0, partial_blob.present.beginning) == CONTENT
    partial_blob.file.close()


@by_two_workers
async def test_a_partial_blob_with_another_digest_is_discarded(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    followed = await followed_by(other, DIGEST)
    await append(partial_blob, deque([CONTENT[:-1], b"!"]))
    assert not await partial_blob.commit()
    assert followed.look() == discarded(len(CONTENT))
    assert await content_of(one, DIGEST) is None
    again = await partial_blob_of(other, DIGEST)
    assert again.present.beginning == 0
    for file in (partial_blob.file, followed.file, again.file):
        file.close()


@by_two_workers
async def test_a_partial_blob_that_is_too_short_or_too_long_is_discarded(one: Worker, other: Worker) -> None:
    for wrong in (CONTENT[:-1], CONTENT + b" ", b""):
        partial_blob = await partial_blob_of(one, DIGEST)
        await append(partial_blob, deque([wrong]))
        assert not await partial_blob.commit()
        partial_blob.file.close()


@by_two_workers
async def test_one_worker_downloads_and_the_others_follow(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    followed = [await followed_by(worker, DIGEST) for worker in (one, other)]
    await append(partial_blob, deque([CONTENT[:10]]))
    assert [each.look() for each in followed] == 2 * [unverified(10)]
    assert await followed[1].file.read(0, 20) == CONTENT[:10]
    await append(partial_blob, deque([CONTENT[10:]]))
    assert await partial_blob.commit()
    assert [each.look() for each in followed] == 2 * [
        verified(len(CONTENT)),
    ]
    partial_blob.file.close()
    for each in followed:
        assert await each.file.read(0, len(CONTENT)) == CONTENT
        each.file.close()


@by_two_workers
async def test_content_that_is_dropped_stays_verified_for_followers(one: Worker, other: Worker) -> None:
    partial_blob, followed = await partial_blob_of(one, DIGEST), await followed_by(other, DIGEST)
    await append(partial_blob, deque([CONTENT]))
    assert await partial_blob.commit()
    await one.store.drop(DIGEST)
    assert followed.look() == verified(len(CONTENT))
    partial_blob.file.close()
    followed.file.close()


@by_two_workers
async def test_the_next_lease_continues_a_kept_partial_blob(one: Worker, other: Worker) -> None:
    lease, followed = await lease_of(one, DIGEST), await followed_by(other, DIGEST)
    partial_blob = lease.partial_blob
    await append(partial_blob, deque([CONTENT[:3000]]))
    await lease.release(keep=True)
    assert followed.look() == unverified(3000)
    again = await partial_blob_of(other, DIGEST)
    assert again.present.beginning == 3000
    await append(again, deque([CONTENT[3000:]]))
    assert followed.look().present.beginning == len(CONTENT)
    assert await again.commit()
    for file in (partial_blob.file, followed.file, again.file):
        file.close()
    assert await content_of(one, DIGEST) == CONTENT


@by_two_workers
async def test_a_discarded_partial_blob_starts_again(one: Worker, other: Worker) -> None:
    lease, followed = await lease_of(one, DIGEST), await followed_by(other, DIGEST)
    partial_blob = lease.partial_blob
    await append(partial_blob, deque([b"something else"]))
    await lease.release(keep=False)
    assert followed.look().is_discarded
    assert await partial_blob.file.read(0, 9) == b"something"
    again = await partial_blob_of(other, DIGEST)
    assert again.present.beginning == 0
    for file in (partial_blob.file, followed.file, again.file):
        file.close()


@by_two_workers
async def test_closing_the_file_ends_the_lease(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    await append(partial_blob, deque([CONTENT[:5]]))
    partial_blob.file.close()
    again = await partial_blob_of(other, DIGEST)
    assert again.present.beginning == 5
    again.file.close()


@by_two_workers
async def test_a_partial_blob_cannot_be_changed_after_its_lease(one: Worker, other: Worker) -> None:
    lease = await lease_of(one, DIGEST)
    partial_blob = lease.partial_blob
    await append(partial_blob, deque([CONTENT]))
    assert await partial_blob.commit()
    with pytest.raises(StorageRefused):
        await append(partial_blob, deque([b"more"]))
    await lease.release(keep=False)
    partial_blob.file.close()
    assert await content_of(other, DIGEST) == CONTENT


@by_two_workers
async def test_a_partial_blob_says_whether_it_holds_bytes(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    await append(partial_blob, deque([b"0123", b"456789"]))
    assert [
        await partial_blob.holds(0, b"0123456789"),
        await partial_blob.holds(3, b"345"),
        await partial_blob.holds(10, b""),
    ] == 3 * [True]
    assert [await partial_blob.holds(0, b"0124"), await partial_blob.holds(4, b"345")] == 2 * [False]
    partial_blob.file.close()


@by_two_workers
async def test_two_digests_have_two_partial_blobs(one: Worker, other: Worker) -> None:
    partial_blobs = [await partial_blob_of(worker, Digest.of(text)) for worker, text in ((one, b"a"), (other, b"b"))]
    for partial_blob, text in zip(partial_blobs, (b"a", b"b"), strict=True):
        await append(partial_blob, deque([text]))
        assert await partial_blob.commit()
        partial_blob.file.close()
    assert await content_of(one, Digest.of(b"b")) == b"b"


@by_two_workers
async def test_of_many_requests_one_gets_the_lease(one: Worker, other: Worker) -> None:
    leases = await asyncio.gather(*(worker.leases.lease(HUB, DIGEST) for worker in (one, other) * 20))
    assert all(leases)
    assert sum(not isinstance(lease, FollowedPartialBlob) for lease in leases) == 1
    for lease in leases:
        assert lease
        (lease if isinstance(lease, FollowedPartialBlob) else lease.partial_blob).file.close()


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(st.binary(max_size=40), max_size=12), cut=st.integers(0, 12))
def test_any_sequence_of_pieces_becomes_the_content(
    kind: str, pieces: list[bytes], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def go() -> None:
        async with two_workers(kind, tmp_path_factory.mktemp("storage")) as (one, other):
            digest, content = Digest.of(b"".join(pieces)), b"".join(pieces)
            first = await lease_of(one, digest)
            await append(first.partial_blob, deque(pieces[:cut]))
            await first.release(keep=True)
            first.partial_blob.file.close()
            second = await partial_blob_of(other, digest)
            assert second.present.beginning == len(b"".join(pieces[:cut]))
            await append(second, deque(pieces[cut:]))
            assert await second.commit()
            second.file.close()
            assert await content_of(one, digest) == content

    asyncio.run(go())


@by_two_workers
async def test_two_upstreams_have_two_partial_blobs(one: Worker, other: Worker) -> None:
    """A partial blob with wrong bytes of one upstream must not be continued with bytes of another one."""
    wrong = await lease_of(one, DIGEST, HUB)
    await append(wrong.partial_blob, deque([b"wrong"]))
    await wrong.release(keep=True)
    wrong.partial_blob.file.close()
    right = await partial_blob_of(other, DIGEST, QUAY)
    assert right.present.beginning == 0
    await append(right, deque([CONTENT]))
    assert await right.commit()
    right.file.close()
    assert await content_of(one, DIGEST) == CONTENT


@by_two_workers
async def test_two_upstreams_can_send_the_same_content_at_once(one: Worker, other: Worker) -> None:
    """Each upstream has its own lease. The second commit adds no copy, and both files have the correct content."""
    slow, fast = await partial_blob_of(one, DIGEST, HUB), await partial_blob_of(other, DIGEST, QUAY)
    followed = await followed_by(other, DIGEST, HUB)
    await append(slow, deque([CONTENT[:10]]))
    await append(fast, deque([CONTENT]))
    assert await fast.commit()
    stored = await one.store.open(DIGEST)
    assert stored
    assert followed.look() == unverified(10)
    await append(slow, deque([CONTENT[10:]]))
    assert await slow.commit()
    assert followed.look() == verified(len(CONTENT))
    assert (
        await stored.read()
        == await slow.file.read(0, slow.present.beginning)
        == await content_of(one, DIGEST)
        == CONTENT
    )
    assert await one.maintenance.contents() == {DIGEST: len(CONTENT)}
    assert (await one.maintenance.space()).partial_blobs == 0
    for file in (slow.file, fast.file, followed.file, stored.file):
        file.close()


@by_two_workers
async def test_a_wrong_commit_does_not_remove_right_content(one: Worker, other: Worker) -> None:
    wrong, right = await partial_blob_of(one, DIGEST, HUB), await partial_blob_of(other, DIGEST, QUAY)
    await append(wrong, deque([b"wrong"]))
    await append(right, deque([CONTENT]))
    assert await right.commit()
    assert not await wrong.commit()
    assert await content_of(one, DIGEST) == CONTENT
    assert (await one.maintenance.space()).partial_blobs == 0
    wrong.file.close()
    right.file.close()
