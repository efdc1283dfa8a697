import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from adapters.shared.object_store import ObjectStore, ObstoreSharedStore, open_object_store
from application.ports.shared import SharedContentDamaged, SharedPart, SharedRecord, SharedStore
from domain.digest import Digest
from domain.part_layout import INLINE_BYTES, LARGEST_PART_BYTES, MIB
from tests.contracts.storage import HUB, QUAY
from tests.e2e.support.seaweedfs import SeaweedFS, seaweedfs
from tests.fakes.events import RecordingEventSink
from tests.fakes.shared_store import FakeSharedStore, shard_of

KINDS = ("fake", "memory", "file", "s3")
CONTENT = b"layer bytes"
DIGEST, OTHER = Digest.of(CONTENT), Digest.of(b"other bytes")
LEASE = "6f1c:0d9a3b"
SENDERS = frozenset({HUB.fingerprint})

_PREFIXES = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@asynccontextmanager
async def opened(*addresses: tuple[ObjectStore, str]) -> AsyncIterator[list[ObstoreSharedStore]]:
    stores = [ObstoreSharedStore(client, address, RecordingEventSink()) for client, address in addresses]
    try:
        yield stores
    finally:
        for store in stores:
            assert store.failure == ""
            await store.close()


def by_two_replicas(test: Callable[[SharedStore, SharedStore], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs the test with the stores of two replicas, once for each kind of store."""

    @pytest.mark.parametrize("kind", KINDS)
    def run(kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if kind == "fake":
            fake = FakeSharedStore()
            asyncio.run(test(fake, fake))
            return
        if kind == "memory":
            client: ObjectStore = MemoryStore()
            clients = [(client, "memory"), (client, "memory")]
        else:
            address = f"file://{tmp_path}/shared"
            if kind == "s3":
                server: SeaweedFS = request.getfixturevalue("server")
                for name, value in server.environment.items():
                    monkeypatch.setenv(name, value)
                address = f"{server.url}/contract-{next(_PREFIXES)}"
            clients = [(open_object_store(address), address) for _ in range(2)]

        async def go() -> None:
            async with opened(*clients) as (one, other):
                await test(one, other)

        asyncio.run(go())

    return run


def inline(content: bytes = CONTENT, *, is_public: bool = False) -> SharedRecord:
    return SharedRecord(len(content), SENDERS, is_public, content)


async def put_parts(
    store: SharedStore, digest: Digest, *contents: bytes, lease_id: str = LEASE
) -> tuple[SharedPart, ...]:
    parts, offset = [], 0
    for content in contents:
        parts.append(await store.put_part(HUB, digest, lease_id, offset, content))
        offset += len(content)
    return tuple(parts)


@by_two_replicas
async def test_content_that_nobody_has_stored_is_not_found(one: SharedStore, other: SharedStore) -> None:
    await one.put(OTHER, inline(b"other bytes"))
    assert await other.find(DIGEST) is None


@by_two_replicas
async def test_another_replica_finds_small_content(one: SharedStore, other: SharedStore) -> None:
    record = inline(is_public=True)
    await one.put(DIGEST, record)
    assert await other.find(DIGEST) == record
    assert await one.find(DIGEST) == record


@by_two_replicas
async def test_content_may_be_empty_or_contain_line_breaks(one: SharedStore, other: SharedStore) -> None:
    for content in (b"", b"\n", b'\n{"version":1}\n', bytes(range(256)) * 4096):
        digest = Digest.of(content)
        await one.put(digest, inline(content))
        assert await other.find(digest) == inline(content)


@by_two_replicas
async def test_digests_of_each_algorithm_are_stored(one: SharedStore, other: SharedStore) -> None:
    digests = [Digest.of(CONTENT, algorithm) for algorithm in ("sha256", "sha384", "sha512")]
    for digest in digests:
        await one.put(digest, inline())
        part = await one.put_part(HUB, digest, LEASE, 0, CONTENT)
        assert await other.get_part(part) == CONTENT
        assert await other.find(digest) == inline()
    assert {digest async for digest, _ in other.records()} == set(digests)
    assert len([found async for found in other.parts()]) == 3


@by_two_replicas
async def test_a_record_replaces_the_one_before(one: SharedStore, other: SharedStore) -> None:
    await one.put(DIGEST, inline())
    record = replace(inline(is_public=True), senders=frozenset({HUB.fingerprint, QUAY.fingerprint}))
    await other.put(DIGEST, record)
    assert await one.find(DIGEST) == record


@by_two_replicas
async def test_a_dropped_record_is_not_found(one: SharedStore, other: SharedStore) -> None:
    await one.put(DIGEST, inline())
    await one.put(OTHER, inline(b"other bytes"))
    await other.drop(DIGEST)
    assert await one.find(DIGEST) is None
    assert await one.find(OTHER) is not None
    await one.drop(DIGEST)


@by_two_replicas
async def test_a_record_names_the_parts_of_large_content(one: SharedStore, other: SharedStore) -> None:
    content = [bytes(MIB), b"1" * MIB, b"2" * 77]
    parts = await put_parts(one, DIGEST, *content)
    record = SharedRecord(2 * MIB + 77, SENDERS, is_public=False, parts=parts)
    await one.put(DIGEST, record)
    found = await other.find(DIGEST)
    assert found == record
    assert [await other.get_part(part) for part in found.parts] == content


@by_two_replicas
async def test_a_part_says_what_was_written(one: SharedStore, other: SharedStore) -> None:
    content = b"x" * LARGEST_PART_BYTES
    part = await one.put_part(HUB, DIGEST, LEASE, 3 * MIB, memoryview(content))
    assert (part.offset, part.size, part.stop) == (3 * MIB, LARGEST_PART_BYTES, 19 * MIB)
    assert part.sha256 == hashlib.sha256(content).hexdigest()
    assert await other.get_part(part) == content


@by_two_replicas
async def test_parts_of_different_upstreams_leases_and_blobs_do_not_replace_each_other(
    one: SharedStore, other: SharedStore
) -> None:
    parts = [
        await one.put_part(HUB, DIGEST, LEASE, 0, b"a"),
        await other.put_part(QUAY, DIGEST, LEASE, 0, b"b"),
        await one.put_part(HUB, DIGEST, "another", 0, b"c"),
        await other.put_part(HUB, OTHER, LEASE, 0, b"d"),
        await other.put_part(HUB, DIGEST, LEASE, 1, b"e"),
    ]
    assert [await one.get_part(part) for part in parts] == [b"a", b"b", b"c", b"d", b"e"]


@by_two_replicas
async def test_a_missing_part_is_damaged_content(one: SharedStore, other: SharedStore) -> None:
    part = await one.put_part(HUB, DIGEST, LEASE, 0, CONTENT)
    await one.remove([part.key])
    with pytest.raises(SharedContentDamaged):
        await other.get_part(part)


@by_two_replicas
async def test_a_part_with_other_bytes_is_damaged_content(one: SharedStore, other: SharedStore) -> None:
    part = await one.put_part(HUB, DIGEST, LEASE, 0, CONTENT)
    await one.put_part(HUB, DIGEST, LEASE, 0, CONTENT[:-1] + b"?")
    with pytest.raises(SharedContentDamaged):
        await other.get_part(part)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"?"], ids=["empty", "shorter", "longer"])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_part_of_another_size_is_damaged_content(kind: str, content: bytes, tmp_path: Path) -> None:
    async def damage(one: SharedStore, other: SharedStore) -> None:
        part = await one.put_part(HUB, DIGEST, LEASE, 0, CONTENT)
        await one.put_part(HUB, DIGEST, LEASE, 0, content)
        with pytest.raises(SharedContentDamaged):
            await other.get_part(part)

    by_two_replicas(damage)(kind, None, tmp_path, None)


@by_two_replicas
async def test_the_lists_contain_all_records_and_all_parts(one: SharedStore, other: SharedStore) -> None:
    assert [found async for found in one.records()] == []
    assert [found async for found in one.parts()] == []
    parts = await put_parts(one, DIGEST, b"abc", b"de")
    await one.put(DIGEST, SharedRecord(5, SENDERS, is_public=False, parts=parts))
    (orphan,) = await put_parts(one, OTHER, b"f", lease_id="another")
    await one.put(OTHER, inline(b"other bytes"))
    assert {digest async for digest, _ in other.records()} == {DIGEST, OTHER}
    assert {(found.key, found.size) async for found in other.parts()} == {
        (part.key, part.size) for part in (*parts, orphan)
    }


@by_two_replicas
async def test_the_parts_of_one_digest_can_be_listed(one: SharedStore, other: SharedStore) -> None:
    digest, neighbour = Digest.of(CONTENT), Digest.of(b"another blob")
    parts = await put_parts(one, digest, b"abc", b"de")
    await put_parts(one, neighbour, b"abc")
    assert {part.key: part.size async for part in other.parts_of(digest)} == {part.key: part.size for part in parts}
    assert [part async for part in other.parts_of(Digest.of(b"unknown"))] == []


@by_two_replicas
async def test_each_digest_is_in_the_list_of_its_shard_only(one: SharedStore, other: SharedStore) -> None:
    digests = [Digest.of(CONTENT, algorithm) for algorithm in ("sha256", "sha512")]
    for digest in digests:
        await put_parts(one, digest, b"abc")
        await one.put(digest, inline())
    for shard in ("ff", *map(shard_of, digests)):
        wanted = {digest for digest in digests if shard_of(digest) == shard}
        assert {digest async for digest, _ in other.records(shard)} == wanted
        assert {part.digest async for part in other.parts(shard)} == wanted


@by_two_replicas
async def test_a_listed_part_names_its_blob_and_its_upstream(one: SharedStore, other: SharedStore) -> None:
    for upstream in (HUB, QUAY):
        await one.put_part(upstream, DIGEST, LEASE, 0, b"abc")
    assert {(part.digest, part.upstream) async for part in other.parts()} == {
        (DIGEST, HUB.fingerprint),
        (DIGEST, QUAY.fingerprint),
    }


@by_two_replicas
async def test_a_listed_record_can_be_removed_by_its_key(one: SharedStore, other: SharedStore) -> None:
    await one.put(DIGEST, inline())
    (found,) = [found async for _, found in other.records()]
    await other.remove([found.key])
    assert await one.find(DIGEST) is None


@by_two_replicas
async def test_the_time_of_a_change_is_that_of_the_last_write(one: SharedStore, other: SharedStore) -> None:
    await one.put_part(HUB, DIGEST, LEASE, 0, b"a")
    (first,) = [found async for found in other.parts()]
    await asyncio.sleep(1.1)  # S3 gives whole seconds
    if isinstance(one, FakeSharedStore):
        one.clock.advance(1.1)
    await other.put_part(HUB, DIGEST, LEASE, 0, b"a")
    (second,) = [found async for found in one.parts()]
    assert 1.0 <= second.changed_at - first.changed_at < 10


@by_two_replicas
async def test_more_parts_than_one_response_lists_are_listed_and_removed(one: SharedStore, other: SharedStore) -> None:
    keys: set[str] = set()
    for start in range(0, 1050, 30):
        parts = [one.put_part(HUB, DIGEST, LEASE, offset, b"x") for offset in range(start, start + 30)]
        keys |= {part.key for part in await asyncio.gather(*parts)}
    assert {found.key async for found in other.parts()} == keys
    await other.remove(sorted(keys))
    assert [found async for found in one.parts()] == []


@by_two_replicas
async def test_missing_objects_among_the_removed_ones_are_no_error(one: SharedStore, other: SharedStore) -> None:
    parts = await put_parts(one, DIGEST, b"a", b"b", b"c")
    keys = [part.key for part in parts]
    await one.remove(keys[:2])
    await other.remove(keys)
    await other.remove(keys)
    await other.remove([])
    assert [found async for found in one.parts()] == []


@by_two_replicas
async def test_a_large_inline_record_and_concurrent_calls_are_served(one: SharedStore, other: SharedStore) -> None:
    content = bytes(range(256)) * (INLINE_BYTES // 256)
    digest = Digest.of(content)
    await asyncio.gather(one.put(digest, inline(content)), other.put(digest, inline(content)))
    found = await asyncio.gather(*(store.find(digest) for store in (one, other) * 8))
    assert all(each == inline(content) for each in found)
