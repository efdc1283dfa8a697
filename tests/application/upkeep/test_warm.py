"""An image that is pulled ahead of time."""

import json
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
            return [progress async for progress in warm(Caller(None, REALM), wanted)]

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
