"""An image that is pulled ahead of time."""

import json
from dataclasses import replace
from typing import Any

import pytest

from application.access.access_request import Caller
from application.upkeep.warm import Image, NoSuchPlatform, Progress
from domain.digest import Digest
from domain.errors import BlobUnknown, ManifestUnknown, Unauthorized, UpstreamBroken, UpstreamUnreachable
from domain.manifests import INDEX_MEDIA_TYPE
from domain.names import Reference
from tests.application.support.service import NAME, REALM, Service
from tests.application.support.watched import watched
from tests.fakes.shared_leases import FakeSharedLeases
from tests.fakes.shared_tier import FakeTier

LAYERS = {name: name.encode() * 1000 for name in ("config", "common", "amd", "arm7", "arm8")}


def entry(content: bytes, **others: object) -> dict[str, object]:
    return {"digest": str(Digest.of(content)), "size": len(content), **others}


def image(*layers: str) -> bytes:
    found = [entry(LAYERS[layer]) for layer in layers]
    return json.dumps({"schemaVersion": 2, "config": found[0], "layers": found[1:]}).encode()


AMD, ARM7, ARM8 = image("config", "common", "amd"), image("config", "common", "arm7"), image("config", "common", "arm8")
_PLATFORMS = [(AMD, "amd64", ""), (ARM7, "arm", "v7"), (ARM8, "arm64", "v8")]
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [
            entry(content, platform={"os": "linux", "architecture": name, "variant": variant})
            for content, name, variant in _PLATFORMS
        ],
    }
).encode()


class Warm:
    def __init__(self, **settings: Any) -> None:
        self.upstream = watched("none")
        self.upstream.put_manifest(str(NAME), "multi", INDEX, INDEX_MEDIA_TYPE)
        for content in (AMD, ARM7, ARM8):
            self.upstream.put_manifest(str(NAME), "amd" if content == AMD else "other", content)
        for layer in LAYERS.values():
            self.upstream.put_blob(str(NAME), layer)
        self.service = Service(self.upstream, **settings)

    def pull(self, tag: str = "multi", platform: str | None = None) -> list[Progress]:
        async def act() -> list[Progress]:
            warm = self.service.parts.warm_cache()
            wanted = Image(NAME, Reference.parse(tag), () if platform is None else (platform,))
            progress = [one async for one in warm(Caller(None, REALM), wanted)]
            await self.service.parts.replicas().finished()
            return progress

        return self.service.run(act())

    @property
    def here(self) -> set[Digest]:
        return set(self.service.parts.store().content)


def digests(*contents: bytes | str) -> set[Digest]:
    return {Digest.of(LAYERS[one] if isinstance(one, str) else one) for one in contents}


def test_all_platforms_are_pulled_where_none_is_named() -> None:
    warm = Warm()
    progress = warm.pull()
    assert warm.here == digests(INDEX, AMD, ARM7, ARM8, *LAYERS)
    assert progress[-1].done == progress[-1].total == sum(map(len, LAYERS.values()))


@pytest.mark.parametrize(
    ("platform", "there"),
    [
        ("linux/amd64", digests(AMD, "amd")),
        ("linux/arm/v7", digests(ARM7, "arm7")),
        ("linux/arm64", digests(ARM8, "arm8")),
        ("linux/arm", digests(ARM7, "arm7")),
        ("linux", digests(AMD, ARM7, ARM8, "amd", "arm7", "arm8")),
    ],
)
def test_a_platform_is_pulled_alone(platform: str, there: set[Digest]) -> None:
    warm = Warm()
    warm.pull(platform=platform)
    assert warm.here == there | digests(INDEX, "config", "common")


@pytest.mark.parametrize("platform", ["windows/amd64", "linux/am", "linux/amd64/v9", "", "amd64"])
def test_a_platform_that_is_not_there_is_told_what_is(platform: str) -> None:
    warm = Warm()
    offered = "it supports linux/amd64, linux/arm/v7, linux/arm64/v8"
    with pytest.raises(NoSuchPlatform, match=offered):
        warm.pull(platform=platform)


def test_an_image_for_one_platform_needs_no_choice() -> None:
    warm = Warm()
    warm.pull("amd", "linux/arm64")
    assert warm.here == digests(AMD, "config", "common", "amd")


def test_progress_only_grows_and_ends_whole() -> None:
    progress = Warm().pull()
    assert progress[0].done == 0
    assert [one.done for one in progress] == sorted(one.done for one in progress)
    assert len({one.total for one in progress}) == 1


def test_what_is_here_is_not_fetched_again() -> None:
    warm = Warm()
    warm.pull()
    warm.upstream.asked.clear()
    assert warm.pull()[-1].done == sum(map(len, LAYERS.values()))
    assert warm.upstream.asked == []


def test_each_blob_is_fetched_once() -> None:
    warm = Warm()
    warm.pull()
    paths = [fetch.resource.path for fetch in warm.upstream.asked]
    assert len(paths) == len(set(paths)) == 4 + len(LAYERS)


def test_what_is_missing_is_told() -> None:
    warm = Warm()
    del warm.upstream.blobs[str(NAME), str(Digest.of(LAYERS["arm8"]))]
    with pytest.raises(BlobUnknown):
        warm.pull()
    with pytest.raises(ManifestUnknown):
        warm.pull("none")


def test_an_upstream_that_is_gone_is_told() -> None:
    warm = Warm()
    warm.upstream.refuse = lambda fetch: UpstreamUnreachable("gone") if "/blobs/" in fetch.resource.path else None
    with pytest.raises(UpstreamUnreachable):
        warm.pull()


def test_who_may_not_read_warms_nothing() -> None:
    upstream = watched("bearer")
    service = Service(upstream)

    async def act() -> None:
        wanted = Image(NAME, Reference.parse("1"))
        with pytest.raises(Unauthorized):
            async for _ in service.parts.warm_cache()(Caller(None, REALM), wanted):
                pass

    service.run(act())


def test_who_stops_looking_ends_the_pull() -> None:
    warm = Warm()

    async def act() -> None:
        pulling = warm.service.parts.warm_cache()(Caller(None, REALM), Image(NAME, Reference.parse("multi")))
        async for _ in pulling:
            break
        await pulling.aclose()

    warm.service.run(act())


def test_indexes_that_refer_to_each_other_end_in_an_error() -> None:
    """Each level names the next one: more levels than any image has."""
    warm = Warm()
    content = AMD
    for level in range(12):
        entries = [entry(content, platform={"os": "linux", "architecture": "amd64"}, level=level) for _ in range(2)]
        content = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        warm.upstream.put_manifest(str(NAME), f"level-{level}", content, INDEX_MEDIA_TYPE)
    with pytest.raises(UpstreamBroken):
        warm.pull("level-11")
    assert len(warm.upstream.asked) < 12


def test_a_manifest_that_is_named_twice_is_pulled_once() -> None:
    warm = Warm()
    platform = {"os": "linux", "architecture": "amd64"}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry(AMD, platform=platform)] * 50}).encode()
    warm.upstream.put_manifest(str(NAME), "twice", index, INDEX_MEDIA_TYPE)
    warm.pull("twice")
    assert [fetch.resource.path.rpartition("/")[2] for fetch in warm.upstream.asked].count(str(Digest.of(AMD))) == 1


# --- with a shared store ---


LARGE = bytes(range(256)) * 14_000
"""More than one part."""


class WarmReplica(Warm):
    """A replica. `was_alone`: it has pulled all images before it got a shared store."""

    def __init__(self, *, was_alone: bool = True) -> None:
        self.tier = FakeTier()
        storage = self.tier.storage()
        super().__init__(clock=self.tier.clock, storage=replace(storage, shared=None))
        self.upstream.put_blob(str(NAME), LARGE)
        self.upstream.put_manifest(str(NAME), "large", of_large())
        if was_alone:
            self.pull()
            self.pull("large")
        assert self.tier.store.kept == {}
        self.upstream.asked.clear()
        self.service = Service(self.upstream, self.tier.clock, storage)

    @property
    def shared(self) -> set[Digest]:
        return set(self.tier.store.kept)


def of_large() -> bytes:
    return json.dumps({"schemaVersion": 2, "config": entry(LAYERS["config"]), "layers": [entry(LARGE)]}).encode()


def test_what_only_the_folder_of_this_machine_has_is_written_to_the_shared_store() -> None:
    warm = WarmReplica()
    warm.pull()
    warm.pull("large")
    assert warm.upstream.asked == []
    assert warm.shared == digests(INDEX, AMD, ARM7, ARM8, *LAYERS, of_large(), LARGE)
    record = warm.tier.store.kept[Digest.of(LARGE)]
    assert (record.size, record.content, len(record.parts)) == (len(LARGE), None, 3)
    assert warm.here == warm.shared


def test_another_replica_reads_what_a_warm_has_shared() -> None:
    warm = WarmReplica()
    warm.pull("large")
    other = Service(warm.upstream, warm.tier.clock, warm.tier.storage("another"))

    async def act() -> None:
        assert await other.blob(digest=Digest.of(LARGE)) == LARGE
        assert await other.blob(digest=Digest.of(LAYERS["config"])) == LAYERS["config"]

    other.run(act())
    assert [one.resource.path for one in warm.upstream.asked if not one.head] == []


def test_what_the_store_has_already_is_not_written_again() -> None:
    warm = WarmReplica(was_alone=False)
    warm.pull("large")  # the downloads publish it
    written = dict(warm.tier.store.asked)
    shared = dict(warm.tier.store.kept)
    warm.pull("large")
    assert (warm.tier.store.asked["put"], warm.tier.store.asked["put_part"]) == (written["put"], written["put_part"])
    assert warm.tier.store.kept == shared
    assert all(record.is_public for record in shared.values())


def test_what_another_replica_publishes_now_is_left_to_it() -> None:
    warm = WarmReplica()
    leases = FakeSharedLeases(warm.tier.leases, "another")
    upstream = warm.service.parts.upstream()

    async def act() -> None:
        await leases.lease(upstream, Digest.of(LARGE))

    warm.service.run(act())
    warm.pull("large")
    assert warm.shared == digests("config", of_large())
    assert warm.tier.store.contents == {}


def test_content_of_another_upstream_is_not_shared_for_this_one() -> None:
    warm = WarmReplica()
    warm.tier.knowledge.sent.clear()
    parts = warm.service.parts

    async def act() -> None:
        await parts.manifest_cache().share(parts.upstream(), Digest.of(AMD))
        assert await parts.warm_cache()._publish(parts.upstream(), Digest.of(LARGE))

    warm.service.run(act())
    assert warm.shared == set()


def test_a_damaged_file_is_fetched_again_and_never_shared() -> None:
    warm = WarmReplica()
    store, digest = warm.service.parts.store(), Digest.of(LARGE)
    store.disk.inodes[digest].write(len(LARGE) - 1, b"x")
    assert store.content[digest] != LARGE
    warm.pull("large")
    assert [one.resource.path.rpartition("/")[2] for one in warm.upstream.asked if not one.head] == [str(digest)]
    assert store.content[digest] == LARGE
    assert warm.shared == digests("config", of_large(), LARGE)


@pytest.mark.parametrize("method", ["find", "put", "put_part"])
def test_a_store_that_fails_does_not_fail_the_warm(method: str) -> None:
    warm = WarmReplica()
    warm.tier.store.failing = frozenset({method})
    assert warm.pull("large")[-1].done == len(LARGE) + len(LAYERS["config"])
    assert Digest.of(LARGE) not in warm.shared
