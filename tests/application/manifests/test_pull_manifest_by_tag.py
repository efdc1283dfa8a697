"""Tags: believed for a while, then asked about by HEAD, and fetched only where they mean something else."""

import asyncio
from dataclasses import replace

import pytest

from domain.digest import Digest
from domain.errors import ManifestUnknown, Unauthorized, UpstreamUnreachable
from domain.manifests import INDEX_MEDIA_TYPE
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE, NAME, PRIVATE
from tests.application.support.watched import ALICES, BOBS, NOBODYS, challenged, processes, watched

NEW = b'{"schemaVersion":2,"layers":[],"annotations":{"new":"yes"}}'
INDEX = b'{"schemaVersion":2,"manifests":[]}'


def test_a_fresh_tag_costs_no_request() -> None:
    pulls = Pulls()

    async def act() -> None:
        first = await pulls.pull()
        assert (first.content, first.is_hit, pulls.asked()) == (IMAGE_CONTENT, False, ["GET"])
        pulls.service.clock.advance(59.9)
        again = await pulls.pull()
        assert (again.content, again.digest, again.media_type) == (IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE)
        assert (again.is_hit, again.warnings, pulls.asked()) == (True, (), [])
        head = await pulls.pull(head=True)
        assert (head.content, head.size, pulls.asked()) == (None, len(IMAGE_CONTENT), [])

    pulls.run(act())


def test_a_tag_that_is_not_fresh_costs_one_head_for_all() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        pulls.asked()
        pulls.service.clock.advance(60)
        answers = await asyncio.gather(*(pulls.pull() for _ in range(10)))
        assert {answer.content for answer in answers} == {IMAGE_CONTENT}
        assert pulls.asked() == ["HEAD"]
        await pulls.pull()
        assert pulls.asked() == []

    pulls.run(act())


def test_a_changed_tag_is_fetched_again() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        pulls.upstream.put_manifest(str(PRIVATE), "1", NEW)
        assert (await pulls.pull()).content == IMAGE_CONTENT  # believed still
        pulls.service.clock.advance(61)
        pulls.asked()
        answer = await pulls.pull()
        assert (answer.content, answer.digest) == (NEW, Digest.of(NEW))
        assert pulls.asked() == ["HEAD", "GET"]
        assert (await pulls.pull()).content == NEW
        assert pulls.asked() == []

    pulls.run(act())


def test_a_tag_that_returns_to_a_cached_manifest_is_served_from_the_cache() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        pulls.upstream.put_manifest(str(PRIVATE), "1", NEW)
        pulls.service.clock.advance(61)
        await pulls.pull()
        pulls.upstream.put_manifest(str(PRIVATE), "1", IMAGE_CONTENT)
        pulls.service.clock.advance(61)
        pulls.asked()
        assert (await pulls.pull()).content == IMAGE_CONTENT
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())


def test_a_head_that_says_too_little_is_followed_by_a_get() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        pulls.service.clock.advance(61)
        pulls.asked()
        pulls.upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, digest=None))
        assert (await pulls.pull()).content == IMAGE_CONTENT
        assert pulls.asked() == ["HEAD", "GET"]

    pulls.run(act())


def test_a_refused_head_counts_only_after_a_refused_get() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        pulls.service.clock.advance(61)
        pulls.asked()
        pulls.upstream.refuse = lambda fetch: challenged() if fetch.head else None
        assert (await pulls.pull()).content == IMAGE_CONTENT
        assert pulls.asked() == ["HEAD", "GET"]

    pulls.run(act())


def test_the_accepted_types_decide_which_manifest_a_tag_gives() -> None:
    pulls = Pulls()
    both = (f"{IMAGE_TYPE}, {INDEX_MEDIA_TYPE}",)

    async def act() -> None:
        assert (await pulls.pull(accept=(IMAGE_TYPE,))).content == IMAGE_CONTENT
        pulls.upstream.put_manifest(str(PRIVATE), "1", INDEX, INDEX_MEDIA_TYPE)
        assert (await pulls.pull(accept=both)).media_type == INDEX_MEDIA_TYPE
        pulls.asked()
        assert (await pulls.pull(accept=(IMAGE_TYPE,))).media_type == IMAGE_TYPE
        assert (await pulls.pull(accept=(INDEX_MEDIA_TYPE, IMAGE_TYPE))).media_type == INDEX_MEDIA_TYPE
        assert pulls.asked() == []
        for _ in range(2):
            answer = await pulls.pull(accept=("application/vnd.nobody.knows",))
            assert answer.media_type == INDEX_MEDIA_TYPE
        assert pulls.asked() == ["HEAD", "HEAD"], "it is asked each time, and what it says is here"

    pulls.run(act())


@pytest.mark.parametrize("header", [BOBS, NOBODYS])
def test_knowing_a_tag_gives_no_permission(header: str) -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        pulls.asked()
        if header == NOBODYS:
            with pytest.raises(Unauthorized):
                await pulls.pull(header)
        else:
            assert (await pulls.pull(header)).content == IMAGE_CONTENT
            assert pulls.asked() == ["HEAD"]

    pulls.run(act())


def test_a_caller_who_is_refused_loses_the_grant_and_others_do_not() -> None:
    pulls = Pulls()

    async def act() -> None:
        for header in (ALICES, BOBS):
            await pulls.pull(header)
        pulls.upstream.refuse = lambda fetch: challenged() if "alice" in repr(fetch.credentials.raw) else None
        pulls.service.clock.advance(61)
        with pytest.raises(Unauthorized):
            await pulls.pull()
        assert (await pulls.pull(BOBS)).content == IMAGE_CONTENT
        with pytest.raises(Unauthorized):  # though the tag is fresh again
            await pulls.pull()

    pulls.run(act())


def test_a_404_is_passed_on_and_the_tag_forgotten() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.pull()
        del pulls.upstream.manifests[str(PRIVATE), "1"]
        pulls.service.clock.advance(61)
        for _ in range(2):
            with pytest.raises(ManifestUnknown):
                await pulls.pull()
        pulls.upstream.fault = UpstreamUnreachable("gone")
        with pytest.raises(UpstreamUnreachable):
            await pulls.pull()

    pulls.run(act())


def test_a_404_ends_what_the_tag_meant_for_other_media_types_too() -> None:
    pulls = Pulls()
    other = (f"{IMAGE_TYPE}, {INDEX_MEDIA_TYPE}",)

    async def act() -> None:
        for accept in ((), other):
            await pulls.pull(NOBODYS, name=NAME, accept=accept)
        del pulls.upstream.manifests[str(NAME), "1"]
        pulls.service.clock.advance(61)
        with pytest.raises(ManifestUnknown):
            await pulls.pull(NOBODYS, name=NAME)
        pulls.upstream.fault = UpstreamUnreachable("gone")
        with pytest.raises(UpstreamUnreachable):
            await pulls.pull(NOBODYS, name=NAME, accept=other)

    pulls.run(act())


def test_a_404_ends_what_the_tag_meant_at_other_workers_too() -> None:
    upstream = watched()
    first, second = processes(upstream, tag_ttl=60)

    async def act() -> None:
        for service in (first, second):
            await Pulls.login(None, service=service)
            await service.manifest(NOBODYS)
        del upstream.manifests[str(NAME), "1"]
        first.clock.advance(61)
        with pytest.raises(ManifestUnknown):
            await first.manifest(NOBODYS)
        upstream.fault = UpstreamUnreachable("gone")
        with pytest.raises(UpstreamUnreachable):
            await second.manifest(NOBODYS)

    first.run(act())


def test_another_worker_knows_what_the_tag_means_now() -> None:
    upstream = watched("none")
    first, second = processes(upstream, tag_ttl=60)

    async def act() -> None:
        for service in (first, second):
            await service.manifest()
        first.clock.advance(61)
        await first.manifest()
        await asyncio.sleep(0)
        upstream.asked.clear()
        await second.manifest()
        assert upstream.asked == []

    first.run(act())
