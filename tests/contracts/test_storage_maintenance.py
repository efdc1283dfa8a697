"""The contract of StorageMaintenance."""

from collections import deque

from domain.digest import Digest
from tests.contracts.storage import Worker, append, by_two_workers, content_of, followed_by, lease_of, partial_blob_of


@by_two_workers
async def test_empty_storage_takes_no_space(one: Worker, other: Worker) -> None:
    space = await one.maintenance.space()
    assert space.partial_blobs == 0
    assert 0 < space.free <= space.total
    assert await one.maintenance.contents() == {}
    assert await one.maintenance.remove_abandoned_partial_blobs() == 0


@by_two_workers
async def test_all_content_is_listed(one: Worker, other: Worker) -> None:
    sizes = {}
    for text in (b"", b"one", b"other" * 1000):
        for algorithm in ("sha256", "sha384", "sha512"):
            digest = Digest.of(text, algorithm)
            await one.store.put(digest, text)
            sizes[digest] = len(text)
    assert await other.maintenance.contents() == sizes
    await one.store.drop(Digest.of(b"one"))
    del sizes[Digest.of(b"one")]
    assert await other.maintenance.contents() == sizes


@by_two_workers
async def test_partial_blobs_are_counted_until_they_are_content(one: Worker, other: Worker) -> None:
    digest = Digest.of(b"0123456789")
    partial_blob = await partial_blob_of(one, digest)
    await append(partial_blob, deque([b"01234"]))
    assert (await other.maintenance.space()).partial_blobs == 5
    assert await other.maintenance.contents() == {}
    await append(partial_blob, deque([b"56789"]))
    assert await partial_blob.commit()
    partial_blob.file.close()
    assert (await other.maintenance.space()).partial_blobs == 0
    assert await other.maintenance.contents() == {digest: 10}


@by_two_workers
async def test_only_partial_blobs_without_a_lease_are_removed(one: Worker, other: Worker) -> None:
    filled, lease = await partial_blob_of(one, Digest.of(b"filled")), await lease_of(one, Digest.of(b"left"))
    left = lease.partial_blob
    followed = await followed_by(other, Digest.of(b"left"))
    await one.store.put(Digest.of(b"content"), b"content")
    for partial_blob in (filled, left):
        await append(partial_blob, deque([b"fi"]))
    await lease.release(keep=True)
    assert await other.maintenance.remove_abandoned_partial_blobs() == 1
    assert await other.maintenance.remove_abandoned_partial_blobs() == 0
    assert followed.look().is_discarded
    assert (await one.maintenance.space()).partial_blobs == 2
    await append(filled, deque([b"lled"]))
    assert await filled.commit()
    assert [await content_of(one, Digest.of(text)) for text in (b"filled", b"content")] == [b"filled", b"content"]
    for file in (filled.file, left.file, followed.file):
        file.close()
