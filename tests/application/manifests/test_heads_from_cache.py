"""HEAD for what is here: answered from here, once the caller's right is proven."""

from dataclasses import replace

import pytest

from application.access.access_request import Caller
from application.blobs.blob_query import BlobAnswer, BlobQuery
from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.authorization import parse_authorization
from domain.digest import Digest
from domain.errors import Denied, RegistryError, Unauthorized, UpstreamBroken
from domain.records import PERSONAL_CLASS, ContentKind, ContentLocation, Link
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, LAYER, LAYER_DIGEST, PRIVATE, REALM
from tests.application.support.watched import ALICES, BOBS, NOBODYS
from tests.fakes.upstream import FakeAnswer


class Heads(Pulls):
    async def head(self, header: str = ALICES, digest: Digest = LAYER_DIGEST) -> BlobAnswer:
        caller, query = Caller(parse_authorization(header), REALM), BlobQuery(PRIVATE, digest, head=True)
        async with self.service.parts.pull_blob().open(caller, query) as answer:
            return answer

    async def read(self) -> None:
        await self.service.blob(ALICES, name=PRIVATE)
        self.asked()

    async def forget_size(self, size: int | None = None) -> None:
        """As a link is that came from a HEAD without a length."""
        parts = self.service.parts
        location = ContentLocation(parts.upstreams().source_of(PRIVATE), ContentKind.BLOB, LAYER_DIGEST)
        await parts.storage().index.keep_link(
            Link(location, "application/octet-stream", size, frozenset({PERSONAL_CLASS})), self.service.clock.now()
        )
        parts.read_permissions().forget_all()

    def say_on_head(self, size: int | None) -> None:
        def alter(answer: FakeAnswer) -> FakeAnswer:
            head = self.upstream.asked[-1].head
            return replace(answer, metadata=replace(answer.metadata, size=size)) if head else answer

        self.upstream.alter = alter


@pytest.mark.parametrize("size", [None, 0, len(LAYER)])
def test_the_size_comes_from_the_cache(size: int | None) -> None:
    heads = Heads(grant_ttl=300)

    async def act() -> None:
        await heads.read()
        await heads.forget_size(size)
        assert (await heads.head()).size == len(LAYER)
        assert heads.asked() == []

    heads.run(act())


@pytest.mark.parametrize("size", [None, 0])
def test_after_the_grant_a_head_without_a_length_proves_only_the_permission(size: int | None) -> None:
    heads = Heads(grant_ttl=300)

    async def act() -> None:
        await heads.read()
        await heads.forget_size()
        heads.say_on_head(size)
        heads.service.clock.advance(301)
        assert (await heads.head()).size == len(LAYER)
        assert heads.asked() == ["HEAD"]
        assert await heads.service.blob(ALICES, name=PRIVATE) == LAYER
        assert heads.asked() == [], "nothing was taken for damaged"

    heads.run(act())


def test_a_caller_without_a_permission_learns_nothing() -> None:
    heads = Heads(grant_ttl=300)

    def refuse(fetch: UpstreamRequest) -> RegistryError | None:
        return Denied("no") if fetch.credentials == ForwardedCredentials(BOBS) else None

    heads.upstream.refuse = refuse

    async def act() -> None:
        await heads.read()
        await heads.forget_size()
        with pytest.raises(Denied):
            await heads.head(BOBS)
        with pytest.raises(Unauthorized):
            await heads.head(NOBODYS)

    heads.run(act())


def test_a_cached_manifest_is_described_from_the_cache() -> None:
    heads = Heads(grant_ttl=300, tag_ttl=60)

    async def act() -> None:
        await heads.pull()
        heads.asked()
        for reference in ("1", str(IMAGE_DIGEST)):
            answer = await heads.pull(reference=reference, head=True)
            assert (answer.size, answer.digest, answer.content) == (len(IMAGE_CONTENT), IMAGE_DIGEST, None)
        assert heads.asked() == []

    heads.run(act())


@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
@pytest.mark.parametrize("is_here", [False, True])
def test_a_manifest_is_never_said_to_be_empty(reference: str, *, is_here: bool) -> None:
    heads = Heads(grant_ttl=300, tag_ttl=60)

    async def act() -> None:
        if is_here:
            await heads.pull(reference=reference)
        heads.say_on_head(0)
        heads.service.clock.advance(301)
        assert (await heads.pull(reference=reference, head=True)).size == len(IMAGE_CONTENT)

    heads.run(act())


def test_a_blob_that_is_not_here_is_never_said_to_be_empty() -> None:
    heads = Heads()

    async def act() -> None:
        heads.say_on_head(0)
        assert (await heads.head()).size == len(LAYER)
        heads.upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, size=0))
        heads.service.parts.read_permissions().forget_all()
        await heads.forget_size()
        with pytest.raises(UpstreamBroken):
            await heads.head()

    heads.run(act())


def test_the_empty_blob_is_said_to_be_empty() -> None:
    heads = Heads()
    empty = heads.upstream.put_blob(str(PRIVATE), b"")

    async def act() -> None:
        assert (await heads.head(digest=empty)).size == 0

    heads.run(act())
