"""Cached content is served for an upstream only where that upstream has sent it in full, or where it is public."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.manifests.manifest_query import ManifestQuery
from domain.access_rules import AccessRules, Effect
from domain.errors import Denied, RegistryError, UpstreamBroken
from domain.names import Reference, RepositoryName
from domain.span_set import SpanSet
from domain.trust import UpstreamIdentity
from entrypoints.settings import UpstreamSettings
from entrypoints.settings.values import Secret
from tests.application.support.ruled import rule, ruled
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, REALM, Service, bytes_of
from tests.application.support.watched import BIG, BIG_DIGEST, PIECE, WatchedUpstream, held, shared, soon
from tests.fakes.parts import memory_storage
from tests.fakes.upstreams import FakeUpstreams

FIRST, SECOND = "https://a.test", "https://b.test"
AT_SECOND = {"namespace": "b.test"}
SECRET = RepositoryName("secret/app")
ANY = RepositoryName("any/app")
OPEN = AccessRules()


class Two:
    """The first upstream gives its content to the mirror's own login only, or to everybody (`is_public`). The second
    one answers 200 to every HEAD; `is_honest`: it has the content too, else it sends other bytes.
    """

    def __init__(self, *, is_public: bool = False, is_honest: bool = False, rules: AccessRules = OPEN) -> None:
        self.rules = rules
        self.first = WatchedUpstream("none" if is_public else "bearer", users={"mirror": "right"})
        self.second = WatchedUpstream("none")
        self.first.put_blob(str(SECRET), BIG)
        self.first.put_manifest(str(SECRET), "1", IMAGE_CONTENT)
        self.second.blobs[str(ANY), str(BIG_DIGEST)] = BIG if is_honest else b"!" * len(BIG)
        other = IMAGE_CONTENT if is_honest else b"{" + b" " * (len(IMAGE_CONTENT) - 2) + b"}"
        media_type = "application/vnd.oci.image.manifest.v1+json"
        self.second.manifests[str(ANY), str(IMAGE_DIGEST)] = media_type, other
        self.second.manifests[str(ANY), "1"] = media_type, other
        if not is_honest:
            self.second.alter = lambda answer: (
                replace(answer, metadata=replace(answer.metadata, digest=IMAGE_DIGEST))
                if self.second.asked[-1].resource.path.endswith("/1")
                else answer
            )
        self.is_public = is_public
        self.storage = memory_storage()
        self.service = self.worker(self.storage)

    def worker(self, storage: Any, clock: Any = None) -> Service:
        return ruled(self._unruled(storage, clock), self.rules)

    def _unruled(self, storage: Any, clock: Any = None) -> Service:
        own: dict[str, Any] = {"identity": UpstreamIdentity.ANONYMOUS}
        if not self.is_public:
            own = {"identity": UpstreamIdentity.SERVICE, "username": "mirror", "password": Secret("right")}
        upstreams = (
            UpstreamSettings(url=FIRST, **own),
            UpstreamSettings(url=SECOND, identity=UpstreamIdentity.ANONYMOUS),
        )
        fakes = FakeUpstreams({FIRST: self.first, SECOND: self.second})
        return Service(fakes, clock, storage, upstreams=upstreams, allow_everyone=True)

    def restarted(self) -> Service:
        return self.worker(shared(self.storage), self.service.clock)

    async def warm(self) -> None:
        assert await self.service.blob(None, SECRET, BIG_DIGEST) == BIG
        for reference in ("1", str(IMAGE_DIGEST)):
            assert (await self.service.manifest(None, SECRET, reference)).content == IMAGE_CONTENT
        await self.service.parts.background().close()

    async def blob(self, service: Service | None = None, **query: Any) -> bytes:
        return await (service or self.service).blob(None, ANY, BIG_DIGEST, hint=AT_SECOND, **query)

    async def manifest(self, reference: str, service: Service | None = None) -> Any:
        return await (service or self.service).manifest(None, ANY, reference, hint=AT_SECOND)


def test_an_upstream_that_says_yes_to_every_head_opens_no_private_blob() -> None:
    two = Two()

    async def act() -> None:
        await two.warm()
        for service in (two.service, two.restarted()):
            with pytest.raises(UpstreamBroken):
                await two.blob(service)

    two.service.run(act())
    store: Any = two.storage.store
    assert store.content[BIG_DIGEST] == BIG


@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_nor_a_private_manifest_by_tag_or_digest(reference: str) -> None:
    two = Two()

    async def act() -> None:
        await two.warm()
        for service in (two.service, two.restarted()):
            with pytest.raises(RegistryError):
                await two.manifest(reference, service)

    two.service.run(act())


def test_nor_does_it_learn_the_size_of_a_private_blob() -> None:
    """Its HEAD leaves the length out, and its GET fails: the length of the stored file is not sent instead."""
    two = Two()

    async def act() -> None:
        await two.warm()
        two.second.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, size=None))
        with pytest.raises(UpstreamBroken):
            await two.blob(head=True)

    two.service.run(act())


def test_another_upstream_that_has_it_is_asked_for_it_once_and_no_second_copy_is_kept() -> None:
    two = Two(is_honest=True)
    store: Any = two.storage.store

    async def act() -> None:
        await two.warm()
        inode = store.disk.inodes[BIG_DIGEST]
        for service in (two.service, two.service, two.restarted()):
            assert await two.blob(service) == BIG
            assert (await two.manifest(str(IMAGE_DIGEST), service)).content == IMAGE_CONTENT
            await service.parts.background().close()
        assert store.disk.inodes[BIG_DIGEST] is inode
        assert store.partial_blobs == {}

    two.service.run(act())
    assert sorted(fetch.resource.kind.value for fetch in two.second.gets) == ["blob", "manifest"]


@pytest.mark.parametrize("is_honest", [True, False])
def test_public_content_is_served_for_every_upstream(is_honest: bool) -> None:  # noqa: FBT001
    two = Two(is_public=True, is_honest=is_honest)

    async def act() -> None:
        await two.warm()
        for service in (two.service, two.restarted()):
            assert await two.blob(service) == BIG
            assert (await two.manifest(str(IMAGE_DIGEST), service)).content == IMAGE_CONTENT

    two.service.run(act())
    assert two.second.gets == []


@pytest.mark.parametrize("reference", ["blob", "1", str(IMAGE_DIGEST)])
def test_what_the_access_rules_keep_from_others_is_not_public(reference: str) -> None:
    """The first upstream asks for no login, but only alice may pull from it here."""
    rules = AccessRules((rule(Effect.ALLOW, "a.test/**", to=("alice",)), rule(Effect.ALLOW, "b.test/**")))
    two = Two(is_public=True, rules=rules)
    alice = Caller(None, REALM, is_operator=True)

    async def act() -> None:
        parts = two.service.parts
        async with parts.pull_blob().open(alice, BlobQuery(SECRET, BIG_DIGEST)) as answer:
            assert answer.pieces
            assert b"".join([bytes_of(piece) async for piece in answer.pieces]) == BIG
        for known in ("1", str(IMAGE_DIGEST)):
            assert (await parts.pull_manifest()(alice, ManifestQuery(SECRET, Reference.parse(known)))).content
        await parts.background().close()
        for service in (two.service, two.restarted()):
            with pytest.raises(Denied):
                await service.blob(None, SECRET, BIG_DIGEST)
            with pytest.raises(RegistryError):
                await (two.blob(service) if reference == "blob" else two.manifest(reference, service))

    two.service.run(act())


def test_no_content_that_comes_while_it_is_fetched_elsewhere_is_given_to_the_others_clients() -> None:
    """The private blob becomes whole between the look for it and the fill of the other upstream."""
    two = Two()

    async def act() -> None:
        gate = held(two.first)
        first = asyncio.create_task(two.service.blob(None, SECRET, BIG_DIGEST))
        await soon(lambda: bool(two.first.gets))
        stolen = held(two.second, 2 * PIECE)
        second = asyncio.create_task(two.blob())
        await soon(lambda: bool(two.second.gets))
        gate.set()
        assert await first == BIG
        stolen.set()
        with pytest.raises(UpstreamBroken):
            await second

    two.service.run(act())


def test_content_is_no_longer_served_for_anybody_once_it_was_dropped() -> None:
    two = Two()

    async def act() -> None:
        await two.warm()
        assert await two.storage.index.was_sent(two.service.parts.upstream(), BIG_DIGEST)
        await two.service.parts.eviction().drop(BIG_DIGEST)
        assert not await two.storage.index.was_sent(two.service.parts.upstream(), BIG_DIGEST)

    two.service.run(act())


@pytest.mark.parametrize("size", [1, 10**12])
def test_an_upstream_that_tells_a_wrong_size_has_no_public_content_removed(size: int) -> None:
    two = Two(is_public=True)
    store: Any = two.storage.store

    async def act() -> None:
        await two.warm()
        two.second.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, size=size))
        for _ in range(2):
            assert await two.blob() == BIG
        assert BIG_DIGEST in store.content
        two.first.asked.clear()
        assert await two.service.blob(None, SECRET, BIG_DIGEST) == BIG
        assert two.first.asked == []

    two.service.run(act())


def test_a_file_that_is_shorter_than_the_upstream_says_is_removed_and_fetched_again() -> None:
    two = Two(is_public=True)
    store: Any = two.storage.store

    async def act() -> None:
        await two.warm()
        store.disk.inodes[BIG_DIGEST].present = SpanSet.up_to(1000)
        assert await two.service.blob(None, SECRET, BIG_DIGEST) == BIG
        assert len(store.content[BIG_DIGEST]) == len(BIG)

    two.service.run(act())
