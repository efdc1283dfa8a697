"""How long an answer may be given again, and manifests that are asked for by digest or are not here any more."""

from dataclasses import replace

import pytest

from domain.errors import ManifestUnknown, Unauthorized
from domain.events import ContentDamaged, ContentRequested
from domain.records import ContentKind
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE, NAME, PRIVATE, Service
from tests.application.support.watched import NOBODYS
from tests.fakes.storage import MemoryInode


def test_good_until_is_the_earliest_of_its_limits() -> None:
    pulls = Pulls(tag_ttl=3, grant_ttl=4)
    now = pulls.service.clock.now()

    async def act() -> None:
        assert (await pulls.pull()).good_until == 0.0
        assert (await pulls.pull()).good_until == now + 3  # the tag
        digest = {"reference": str(IMAGE_DIGEST)}
        assert (await pulls.pull(**digest)).good_until == now + 4  # the grant
        await pulls.login(1)
        pulls.service.clock.advance(1)
        await pulls.login(1)
        assert (await pulls.pull()).good_until == now + 2  # the token
        assert (await pulls.pull(**digest)).good_until == now + 2

    pulls.run(act())


def test_an_answer_is_good_for_five_seconds_after_the_index_was_read() -> None:
    pulls = Pulls(tag_ttl=60, grant_ttl=300)
    now = pulls.service.clock.now()

    async def act() -> None:
        await pulls.pull()
        for seconds in (0, 3, 1.5):
            pulls.service.clock.advance(seconds)
            for reference in ("1", str(IMAGE_DIGEST)):
                assert (await pulls.pull(reference=reference)).good_until == now + 5
        pulls.service.clock.advance(0.5)
        assert (await pulls.pull()).good_until == now + 10

    pulls.run(act())


@pytest.mark.parametrize(
    ("scheme", "settings"), [("none", {}), ("bearer", {"upstream_identity": "anonymous"}), ("bearer", {})]
)
def test_good_until_ends_with_the_mirrors_token(scheme: str, settings: dict[str, str]) -> None:
    pulls = Pulls(scheme, tag_ttl=3600, grant_ttl=3600, token_ttl=60, **settings)

    async def act() -> list[float]:
        header = f"Bearer {pulls.service.own_token()}"
        asked = ("1", "1", str(IMAGE_DIGEST))
        return [(await pulls.pull(header, name=NAME, reference=reference)).good_until for reference in asked]

    now = pulls.service.clock.now()
    assert max(pulls.run(act())) <= now + 60


def test_a_cached_digest_only_costs_a_request_for_the_permission() -> None:
    pulls = Pulls(grant_ttl=300)

    async def act() -> None:
        digest = {"reference": str(IMAGE_DIGEST)}
        await pulls.pull(**digest)
        assert pulls.asked() == ["HEAD", "GET"]
        pulls.service.clock.advance(299)
        assert (await pulls.pull(**digest)).is_hit
        assert pulls.asked() == []
        pulls.service.clock.advance(2)
        assert (await pulls.pull(**digest)).content == IMAGE_CONTENT
        assert pulls.asked() == ["HEAD"]
        with pytest.raises(Unauthorized):
            await pulls.pull(NOBODYS, **digest)

    pulls.run(act())


def test_a_digest_of_another_repository_is_no_hit() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        await pulls.pull(name=NAME)
        del pulls.upstream.manifests[str(NAME), "1"], pulls.upstream.manifests[str(NAME), str(IMAGE_DIGEST)]
        pulls.service.parts.read_permissions().forget_all()
        source = pulls.service.parts.upstreams().source_of(NAME)
        index = pulls.service.parts.storage().index
        for link in await index.links_of(source):
            await index.forget_link(link.location)
        with pytest.raises(ManifestUnknown):
            await pulls.pull(name=NAME, reference=str(IMAGE_DIGEST))

    pulls.run(act())


def test_a_head_without_a_media_type_takes_none_away() -> None:
    """A manifest without a Content-Type is none that a client can read."""
    pulls = Pulls(grant_ttl=300)

    async def act() -> str:
        digest = {"reference": str(IMAGE_DIGEST)}
        await pulls.pull(**digest)
        pulls.service.clock.advance(301)
        pulls.upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, media_type=None))
        return (await pulls.pull(**digest)).media_type

    assert pulls.run(act()) == IMAGE_TYPE


def test_damaged_manifests_are_fetched_again() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        store = pulls.service.parts.store()
        store.disk.inodes[IMAGE_DIGEST] = MemoryInode(IMAGE_CONTENT[:-1] + b"!")
        pulls.service.parts.manifest_cache().forget_all()
        pulls.asked()
        assert (await pulls.pull()).content == IMAGE_CONTENT
        assert pulls.asked()[-1] == "GET"
        assert store.content[IMAGE_DIGEST] == IMAGE_CONTENT
        assert ContentDamaged(str(IMAGE_DIGEST)) in pulls.service.events

    pulls.run(act())


@pytest.mark.parametrize("settings", [{"cache_dir": "off"}, {}])
def test_a_tag_whose_manifest_is_not_cached_is_fetched_at_once(settings: dict[str, str]) -> None:
    """A HEAD before the GET would be for nothing."""
    pulls = Pulls(**settings)

    async def act() -> None:
        for _ in range(2):
            await pulls.pull()
            if not settings:
                pulls.service.parts.store().disk.inodes.clear()
                pulls.service.parts.manifest_cache().forget_all()

    pulls.run(act())
    assert pulls.asked() == ["GET", "GET"]


def test_hits_and_misses_are_reported() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        await pulls.pull()
        await pulls.pull(reference=str(IMAGE_DIGEST))

    pulls.run(act())
    hits = [event.is_hit for event in pulls.service.events if isinstance(event, ContentRequested)]
    kinds = {event.kind for event in pulls.service.events if isinstance(event, ContentRequested)}
    assert (hits, kinds) == ([False, True, True], {ContentKind.MANIFEST})


def test_stored_manifests_survive_the_process() -> None:
    pulls = Pulls("none")
    storage = pulls.service.parts.storage()
    pulls.run(pulls.pull(None))
    pulls.asked()
    later = Service(pulls.upstream, pulls.service.clock, storage, tag_ttl=60)
    assert later.run(later.manifest(name=PRIVATE)).content == IMAGE_CONTENT
    assert pulls.asked() == []
