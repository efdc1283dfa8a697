"""The contract of ContentStore."""

import os
from collections import deque
from pathlib import Path

import pytest

from adapters.storage.null_storage import NullContentStore
from application.ports.content import StorageFull
from application.ports.file_backed import FileBacked
from domain.digest import Digest, DigestCheck
from tests.contracts.storage import (
    HUB,
    KINDS,
    Worker,
    append,
    by_two_workers,
    content_of,
    partial_blob_of,
    two_workers,
)

CONTENT = b"a layer " * 1000
DIGEST = Digest.of(CONTENT)


async def fill(worker: Worker, content: bytes = CONTENT) -> None:
    partial_blob = await partial_blob_of(worker, Digest.of(content))
    await append(partial_blob, deque([content]))
    assert await partial_blob.commit()
    partial_blob.file.close()


@by_two_workers
async def test_missing_content_is_not_found(one: Worker, other: Worker) -> None:
    assert await one.store.open(DIGEST) is None
    assert await one.store.drop(DIGEST) == 0


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("kind", KINDS)
async def test_content_is_found_under_each_kind_of_digest(kind: str, algorithm: str, tmp_path: Path) -> None:
    async with two_workers(kind, tmp_path) as (one, other):
        put, filled = Digest.of(b"put", algorithm), Digest.of(b"filled", algorithm)
        await one.store.put(put, b"put")
        partial_blob = await partial_blob_of(one, filled)
        await append(partial_blob, deque([b"fil", b"led"]))
        assert await partial_blob.commit()
        partial_blob.file.close()
        assert [await content_of(other, put), await content_of(other, filled)] == [b"put", b"filled"]


@by_two_workers
async def test_parts_of_content_are_hashed(one: Worker, other: Worker) -> None:
    await one.store.put(DIGEST, CONTENT)
    stored = await other.store.open(DIGEST)
    assert stored is not None
    check = DigestCheck(DIGEST)
    for start in (0, 1000):
        await stored.file.hash(check, start, 1000 if start == 0 else stored.size)
    assert check.holds
    await stored.file.hash(check, 0, 1)
    assert not check.holds
    stored.file.close()


@by_two_workers
async def test_content_can_be_stored_twice_and_can_be_empty(one: Worker, other: Worker) -> None:
    for content in (b"", b"twice"):
        for worker in (one, other):
            await worker.store.put(Digest.of(content), content)
        assert await content_of(one, Digest.of(content)) == content


@by_two_workers
async def test_open_content_is_read_in_parts(one: Worker, other: Worker) -> None:
    await one.store.put(DIGEST, CONTENT)
    stored = await one.store.open(DIGEST)
    assert stored
    assert stored.size == len(CONTENT)
    assert await stored.file.read(8, 15) == b"a layer"
    assert await stored.file.read(7999, 9000) == b" "
    assert await stored.file.read(9000, 9001) == b""
    assert isinstance(stored.file, FileBacked)
    assert os.pread(stored.file.descriptor, 7, 8) == b"a layer"
    stored.file.close()


@by_two_workers
async def test_dropped_content_stays_readable_for_open_readers(one: Worker, other: Worker) -> None:
    await one.store.put(DIGEST, CONTENT)
    stored = await other.store.open(DIGEST)
    assert stored
    assert await one.store.drop(DIGEST) == len(CONTENT)
    assert await one.store.drop(DIGEST) == 0
    assert await content_of(one, DIGEST) is await content_of(other, DIGEST) is None
    assert await stored.read() == CONTENT
    stored.file.close()


async def test_null_storage_has_no_space() -> None:
    store = NullContentStore()
    assert await store.open(DIGEST) is None
    assert await store.drop(DIGEST) == 0
    for refused in (store.put(DIGEST, CONTENT), store.lease(HUB, DIGEST)):
        with pytest.raises(StorageFull):
            await refused
