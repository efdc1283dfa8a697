"""What the page shows of repositories, tags and images, to a viewer who may know of them."""

import json
from collections import Counter
from typing import Any

import pytest

from application.page.browse_cache import ImageDetails
from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.records import ANONYMOUS_CALLER
from domain.upstreams import Source
from tests.application.page.gallery import CONFIG, PUBLIC_IMAGE, SHARED, Gallery, entry, manifest_of
from tests.application.support.service import IMAGE_TYPE, NAME, PRIVATE
from tests.application.support.watched import NOBODYS

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
SIGNATURE = manifest_of(
    artifactType="application/vnd.example.signature", subject=entry(PUBLIC_IMAGE, IMAGE_TYPE), annotations={"by": "me"}
)
ARM_IMAGE = manifest_of(SHARED, annotations={"arm": "yes"})


class Shelf(Gallery):
    """Everything is public and pulled by anonymous callers."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("3", **settings)

    def put(self, name: str, tag: str, content: bytes = PUBLIC_IMAGE, media_type: str = IMAGE_TYPE) -> Digest:
        self.upstream.public.add(name)
        for blob in (CONFIG, SHARED):
            self.upstream.put_blob(name, blob)
        return self.upstream.put_manifest(name, tag, content, media_type)

    async def fetch(self, name: str, *references: str) -> None:
        for reference in references:
            await self.service.manifest(NOBODYS, RepositoryName(name), reference)
        await self.service.parts.background().close()

    async def pages(self, limit: int, containing: str = "") -> list[list[str]]:
        """All pages, as a viewer follows them."""
        found, after = [], None
        while True:
            page = await self.service.parts.browse_cache().repositories(
                await self.viewer("nobody"), self.service.parts.upstreams().upstreams, containing, after, limit
            )
            assert not page.is_cut
            found.append([str(one.source.repository) for one in page.entries])
            if page.following is None:
                return found
            after = page.following

    async def seen(self, name: str, reference: str = "1") -> ImageDetails:
        image = await self.image("nobody", RepositoryName(name), reference)
        assert image is not None
        return image


def test_repositories_come_in_pages() -> None:
    shelf = Shelf()
    names = sorted(f"team/app{number}" for number in range(7))

    async def act() -> None:
        for name in names:
            shelf.put(name, "1")
            await shelf.fetch(name, "1")
        assert await shelf.pages(3) == [names[:3], names[3:6], names[6:]]
        assert await shelf.pages(7) == [names]
        assert await shelf.pages(5, "app6") == [["team/app6"]]
        assert await shelf.pages(5, "absent") == [[]]

    shelf.run(act())


def test_hidden_repositories_do_not_end_a_list() -> None:
    shelf = Shelf()

    async def act() -> None:
        for number in range(40):
            shelf.put(f"a/hidden{number}", "1")
            await shelf.fetch(f"a/hidden{number}", "1")
        for number in range(40):
            source = Source(shelf.service.parts.upstream(), RepositoryName(f"a/hidden{number}"))
            await shelf.service.parts.storage().index.forget_grant(ANONYMOUS_CALLER, source)
        shelf.service.parts.grants().forget_all()
        shelf.put("b/seen", "1")
        await shelf.fetch("b/seen", "1")
        assert await shelf.pages(3) == [["b/seen"]]

    shelf.run(act())


def test_a_list_says_that_it_is_cut_if_too_many_repositories_are_hidden() -> None:
    shelf = Shelf()

    async def act() -> None:
        for number in range(130):
            shelf.put(f"a/hidden{number:03}", "1")
            await shelf.fetch(f"a/hidden{number:03}", "1")
        shelf.service.clock.advance(100_000)
        shelf.put("b/seen", "1")
        await shelf.fetch("b/seen", "1")
        page = await shelf.service.parts.browse_cache().repositories(
            await shelf.viewer("nobody"), shelf.service.parts.upstreams().upstreams
        )
        assert (page.entries, page.following, page.is_cut) == ((), None, True)

    shelf.run(act())


def test_an_entry_has_the_first_tags() -> None:
    shelf = Shelf()

    async def act() -> None:
        for number in range(6):
            shelf.put("team/app", f"v{number}")
            await shelf.fetch("team/app", f"v{number}")
        page = await shelf.service.parts.browse_cache().repositories(
            await shelf.viewer("nobody"), shelf.service.parts.upstreams().upstreams
        )
        [one] = page.entries
        assert (list(map(str, one.tags)), one.has_more) == ([f"v{number}" for number in range(5)], True)

    shelf.run(act())


def test_tags_come_in_pages() -> None:
    shelf = Shelf()

    async def act() -> None:
        browse, viewer = shelf.service.parts.browse_cache(), await shelf.viewer("nobody")
        for number in range(5):
            shelf.put("team/app", f"v{number}")
            await shelf.fetch("team/app", f"v{number}")
        source = Source(shelf.service.parts.upstream(), RepositoryName("team/app"))
        first = await browse.tags(viewer, source, "", 3)
        assert first
        assert [str(one.key.tag) for one in first.tags] == ["v0", "v1", "v2"]
        rest = await browse.tags(viewer, source, str(first.following), 3)
        assert rest
        assert ([str(one.key.tag) for one in rest.tags], rest.following) == (["v3", "v4"], None)

    shelf.run(act())


def test_an_image_has_its_layers_configuration_and_history() -> None:
    shelf = Shelf()

    async def act() -> None:
        await shelf.pull("nobody", NAME, SHARED, CONFIG)
        image = await shelf.seen(str(NAME))
        assert image.manifest
        assert image.manifest.size == len(SHARED) + len(CONFIG)
        assert [(part.entry.size, part.is_cached) for part in image.parts] == [(len(SHARED), True)]
        assert image.configuration
        assert dict(image.configuration.facts) == {"platform": "linux/amd64"}
        assert image.configuration.environment == ("A=1",)
        assert [step.command for step in image.configuration.history] == ["COPY . /"]

    shelf.run(act())


def test_the_configuration_is_not_fetched() -> None:
    shelf = Shelf()

    async def act() -> None:
        await shelf.pull("nobody", NAME)
        image = await shelf.seen(str(NAME))
        assert image.configuration is None
        assert [part.is_cached for part in image.parts] == [False]

    shelf.run(act())


def index_of(*images: tuple[bytes, str], **more: Any) -> bytes:
    entries = [
        entry(content, IMAGE_TYPE) | {"platform": {"os": "linux", "architecture": platform}}
        for content, platform in images
    ]
    attested = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": str(Digest.of(PUBLIC_IMAGE)),
    }
    entries.append(entry(SIGNATURE, IMAGE_TYPE) | {"annotations": attested})
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries} | more).encode()


def test_an_index_has_its_platforms_and_shows_the_first_that_is_cached() -> None:
    shelf = Shelf()
    amd, arm = Digest.of(PUBLIC_IMAGE), Digest.of(ARM_IMAGE)

    async def act() -> None:
        shelf.put(
            "team/app",
            "1",
            index_of((PUBLIC_IMAGE, "amd64"), (ARM_IMAGE, "arm64"), annotations={"all": "yes"}),
            INDEX_TYPE,
        )
        await shelf.fetch("team/app", "1")
        image = await shelf.seen("team/app")
        assert [(one.entry.platform, one.is_cached) for one in image.platforms] == [
            ("linux/amd64", False),
            ("linux/arm64", False),
        ]
        assert image.manifest is None
        for content in (ARM_IMAGE, PUBLIC_IMAGE):
            shelf.put("team/app", str(Digest.of(content)), content)
        await shelf.fetch("team/app", str(arm))
        image = await shelf.seen("team/app")
        assert (image.shown, [one.is_cached for one in image.platforms]) == (arm, [False, True])
        assert image.manifest
        assert dict(image.manifest.annotations) == {"arm": "yes"}
        assert image.index
        assert dict(image.index.annotations) == {"all": "yes"}
        await shelf.fetch("team/app", str(amd))
        assert (await shelf.seen("team/app")).shown == amd
        browse, viewer = shelf.service.parts.browse_cache(), await shelf.viewer("nobody")
        source = Source(shelf.service.parts.upstream(), RepositoryName("team/app"))
        chosen = await browse.image(viewer, source, Reference.parse("1"), arm)
        assert chosen
        assert chosen.shown == arm

    shelf.run(act())


def test_cached_referrers_are_listed() -> None:
    shelf = Shelf()
    digest = Digest.of(PUBLIC_IMAGE)

    async def act() -> None:
        shelf.put("team/app", "1", index_of((PUBLIC_IMAGE, "amd64")), INDEX_TYPE)
        shelf.put("team/app", str(digest))
        signature = shelf.put("team/app", str(Digest.of(SIGNATURE)), SIGNATURE)
        cosign = manifest_of(annotations={"cosign": "yes"})
        shelf.put("team/app", f"sha256-{digest.encoded}.sig", cosign)
        await shelf.fetch("team/app", "1", str(digest))
        assert (await shelf.seen("team/app")).referrers == ()
        await shelf.fetch("team/app", str(signature), f"sha256-{digest.encoded}.sig")
        found = {one.digest: one.kind for one in (await shelf.seen("team/app")).referrers}
        assert found == {signature: "attestation-manifest", Digest.of(cosign): "sig"}

    shelf.run(act())


def test_a_manifest_with_a_subject_is_a_referrer() -> None:
    shelf = Shelf()

    async def act() -> None:
        shelf.put("team/app", "1")
        signature = shelf.put("team/app", str(Digest.of(SIGNATURE)), SIGNATURE)
        await shelf.fetch("team/app", "1", str(signature))
        [one] = (await shelf.seen("team/app")).referrers
        assert (one.digest, one.kind) == (signature, "application/vnd.example.signature")
        assert (await shelf.seen("team/app", str(signature))).referrers == ()

    shelf.run(act())


def test_an_image_is_found_by_a_digest_that_the_viewer_was_given() -> None:
    shelf = Shelf()

    async def act() -> None:
        digest = str(Digest.of(PUBLIC_IMAGE))
        await shelf.fetch(str(NAME), digest)
        assert (await shelf.seen(str(NAME), digest)).cached_tag is None
        assert await shelf.image("nobody", NAME, f"sha256:{'0' * 64}") is None
        assert await shelf.image("nobody", PRIVATE, digest) is None

    shelf.run(act())


@pytest.mark.parametrize("content", [b"{}", b'{"layers":{}}', b'{"layers":[1,{"digest":"x"}],"config":[]}'])
def test_an_odd_manifest_is_shown_without_layers(content: bytes) -> None:
    shelf = Shelf()

    async def act() -> None:
        odd = json.dumps(json.loads(content) | {"schemaVersion": 2, "mediaType": IMAGE_TYPE}).encode()
        shelf.put("team/app", "1", odd)
        await shelf.fetch("team/app", "1")
        assert (await shelf.seen("team/app")).parts == ()

    shelf.run(act())


@pytest.mark.parametrize("repositories", [30, 120])
def test_the_number_of_reads_does_not_grow_with_the_cache(repositories: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, reads = Shelf(), Counter[str]()

    def count(owner: Any, *names: str) -> None:
        for name in names:
            read = getattr(owner, name)

            async def counted(*args: Any, name: str = name, read: Any = read) -> Any:
                reads[name] += 1
                return await read(*args)

            monkeypatch.setattr(owner, name, counted)

    async def act() -> None:
        for number in range(repositories):
            shelf.put(f"team/app{number:03}", "1")
            await shelf.fetch(f"team/app{number:03}", "1")
        shelf.service.parts.grants().forget_all()
        count(shelf.service.parts.storage().index, "find_grant", "find_tags", "find_link", "tags_of", "links_of")
        count(shelf.service.parts.storage().images, "repositories", "first_tags", "tags_in")
        page = await shelf.service.parts.browse_cache().repositories(
            await shelf.viewer("nobody"), shelf.service.parts.upstreams().upstreams
        )
        assert len(page.entries) == 25
        assert reads["find_grant"] <= 32
        assert (reads["repositories"], reads["first_tags"]) == (1, 1)
        assert reads.total() <= 34

    shelf.run(act())
