"""A hit needs a grant of the caller's own and a link of the repository's own."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import (
    BlobUnknown,
    Denied,
    RangeUnsatisfiable,
    RegistryError,
    Unauthorized,
    UpstreamRejected,
    UpstreamUnreachable,
)
from domain.tokens import IssuedToken
from tests.application.support.reads import Reads
from tests.application.support.service import ALICE, BOB, LAYER, LAYER_DIGEST, NAME, PRIVATE, Service, basic
from tests.application.support.watched import ALICES, ALICES_OTHER, BOBS, NOBODYS, challenged, processes, watched


def test_a_hit_asks_nothing_of_the_upstream() -> None:
    world = Reads()
    assert world.run(world.read(), world.asked(2), world.read(), world.read(head=True), world.asked(0))[0] == LAYER


def test_another_token_of_the_same_user_hits() -> None:
    world = Reads()
    world.run(world.read(), world.asked(2), world.read(ALICES_OTHER), world.asked(0))


def test_another_caller_is_asked_for_though_the_content_is_here() -> None:
    world = Reads()
    world.run(world.read(), world.asked(2), world.read(BOBS), world.asked(1), world.read(BOBS), world.asked(0))


def test_a_caller_without_a_right_gets_nothing_of_what_is_here() -> None:
    world = Reads()
    for head in (False, True):
        world.run(world.read(), world.refused(NOBODYS, head=head), world.refused("Bearer unknown", head=head))


def test_a_grant_is_no_link() -> None:
    world = Reads()
    digest = world.upstream.put_blob(str(NAME), b"of the other repository")
    world.run(
        world.read(),
        world.read(name=NAME, digest=digest),
        world.asked(4),
        world.refused(digest=digest, error=BlobUnknown),
        world.asked(1),  # as for what is not here
    )


def test_a_grant_is_not_extended_by_hits() -> None:
    world = Reads(grant_ttl=300)
    steps = [world.read(), world.asked(2)]
    for _ in range(5):
        steps += [world.later(59), world.read(), world.asked(0)]
    world.run(*steps, world.later(5), world.read(), world.asked(1))


def test_proof_is_a_head_and_it_renews_the_grant() -> None:
    world = Reads(grant_ttl=300)
    world.run(world.read(), world.asked(2), world.later(301), world.read())
    assert [fetch.head for fetch in world.upstream.asked] == [True]
    world.run(world.later(299), world.asked(1), world.read(), world.asked(0))


def test_a_grant_ends_with_the_token_that_earned_it() -> None:
    world = Reads(grant_ttl=3600)
    world.run(world.relogin(100), world.read(), world.asked(2), world.later(99), world.read(), world.asked(0))
    world.upstream.refuse = lambda _: challenged()

    async def without_a_new_token() -> None:
        world.service.clock.advance(2)
        await world.refused()

    world.service.run(without_a_new_token())


def test_a_token_that_has_ended_is_none_whatever_was_granted() -> None:
    world = Reads(grant_ttl=3600)
    world.upstream.asked.clear()

    async def other_token_still_good() -> None:
        await world.service.warm_up()
        now = int(world.service.clock.now())
        callers = world.service.parts.caller_identities()
        await callers.remember(ALICE, IssuedToken(ALICES.removeprefix("Bearer "), 1000, now))
        await callers.remember(ALICE, IssuedToken(ALICES_OTHER.removeprefix("Bearer "), 10, now))
        await world.read(ALICES)
        world.service.clock.advance(11)
        await world.asked(2)
        await world.read(ALICES)
        await world.asked(0)
        await world.read(ALICES_OTHER)
        await world.asked(1)

    world.service.run(other_token_still_good())


@pytest.mark.parametrize("refusal", [challenged(), Denied("no")])
def test_a_refusal_ends_the_grant_of_this_caller_only(refusal: RegistryError) -> None:
    world = Reads(grant_ttl=300)
    other = world.upstream.put_blob(str(PRIVATE), b"another blob")

    async def refuse_alice_only() -> None:
        world.upstream.refuse = lambda fetch: refusal if "alice" in repr(fetch.credentials.raw) else None

    world.run(
        world.read(),
        world.read(BOBS),
        world.asked(3),
        refuse_alice_only(),
        world.refused(digest=other, error=type(refusal) if isinstance(refusal, Denied) else Unauthorized),
        world.asked(1),
        world.refused(error=type(refusal) if isinstance(refusal, Denied) else Unauthorized),
        world.asked(2),
        world.read(BOBS),
        world.asked(0),
    )


def test_a_404_kills_the_link_and_not_the_grant() -> None:
    world = Reads(grant_ttl=300)
    world.run(world.read(), world.asked(2), world.later(301))
    blob = world.upstream.blobs.pop((str(PRIVATE), str(LAYER_DIGEST)))
    world.run(world.refused(error=BlobUnknown), world.asked(2), world.refused(error=BlobUnknown), world.asked(2))
    world.upstream.blobs[str(PRIVATE), str(LAYER_DIGEST)] = blob
    world.run(world.read(), world.asked(1), world.read(), world.asked(0))


@pytest.mark.parametrize("refusal", [challenged(), Denied("no"), BlobUnknown("no"), UpstreamRejected("405")])
def test_a_refused_head_counts_only_after_a_refused_get(refusal: RegistryError) -> None:
    """As at public.ecr.aws, which refuses every HEAD on a blob."""
    world = Reads(grant_ttl=300)
    steps = (world.read(), world.asked(2), world.later(301), world.refusing(refusal, head_only=True), world.read())
    assert world.run(*steps)[-1] == LAYER
    head, get = world.upstream.asked
    assert (head.head, get.head, get.byte_range) == (True, False, ByteRange(0, 0))
    world.run(world.asked(2), world.read(), world.asked(0))


def test_an_empty_blob_has_no_first_byte_and_is_there() -> None:
    world = Reads(grant_ttl=300)
    empty = world.upstream.put_blob(str(PRIVATE), b"")

    async def refuse_odd() -> None:
        world.upstream.refuse = lambda fetch: (
            challenged() if fetch.head else RangeUnsatisfiable("none", size=0) if fetch.byte_range else None
        )

    world.run(world.read(digest=empty), world.later(301), refuse_odd(), world.read(digest=empty))


def test_refusals_are_never_shared_between_callers() -> None:
    world = Reads()
    world.upstream.refuse = lambda fetch: None if "alice" in repr(fetch.credentials.raw) else challenged()

    async def at_once() -> list[Any]:
        await world.service.warm_up()
        await world.relogin()
        await world.read()
        headers = [ALICES, BOBS, ALICES, NOBODYS, BOBS]
        return await asyncio.gather(*(world.read(header) for header in headers), return_exceptions=True)

    world.service.clock.advance(301)
    results = world.service.run(at_once())
    assert [result == LAYER for result in results] == [True, False, True, False, False]


def test_equal_questions_of_one_caller_are_one() -> None:
    world = Reads(grant_ttl=300)

    async def many() -> None:
        await asyncio.gather(*(world.read() for _ in range(10)))

    world.run(world.read(), world.asked(2), world.later(301), many(), world.asked(1))


def test_a_media_type_belongs_to_the_link() -> None:
    world = Reads()
    world.upstream.alter = lambda answer: replace(
        answer, metadata=replace(answer.metadata, media_type="application/x-odd")
    )

    async def types() -> tuple[str, str]:
        await world.read()
        world.upstream.alter = lambda answer: answer
        await world.read(name=NAME)
        odd = await world.service.parts.storage().index.links_of(world.service.parts.upstreams().source_of(PRIVATE))
        usual = await world.service.parts.storage().index.links_of(world.service.parts.upstreams().source_of(NAME))
        return odd[0].media_type, usual[0].media_type

    assert world.run(types())[0] == ("application/x-odd", "application/octet-stream")


def test_without_grant_ttl_each_hit_is_proven() -> None:
    world = Reads(grant_ttl=0)
    world.run(world.read(), world.asked(2), world.read(), world.asked(1), world.read(head=True), world.asked(1))


def test_a_private_repository_is_refused_while_the_upstream_is_gone() -> None:
    world = Reads(grant_ttl=300)
    gone = UpstreamUnreachable
    world.run(world.read(), world.gone(), world.read(), world.later(301), world.refused(error=gone))


def test_a_public_repository_stays_readable_for_a_while() -> None:
    world = Reads(grant_ttl=300, stale_ttl=1000)
    gone = world.refused(NOBODYS, UpstreamUnreachable, name=NAME)
    steps = (world.read(NOBODYS, name=NAME), world.gone(), world.later(999))
    world.run(*steps, world.read(NOBODYS, name=NAME), world.read(BOBS, name=NAME), world.later(2), gone)


def test_the_first_anonymous_refusal_ends_what_is_public() -> None:
    world = Reads(grant_ttl=300)

    async def closed() -> None:
        world.upstream.public.clear()

    reads = (world.read(NOBODYS, name=NAME), closed(), world.later(301), world.refused(NOBODYS, name=NAME))
    world.run(*reads, world.gone(), world.refused(NOBODYS, UpstreamUnreachable, name=NAME))


def test_a_refusal_ends_the_grant_at_every_worker() -> None:
    """The next request may come to another worker, which has the grant in its memory."""
    upstream = watched()
    first, second = processes(upstream, grant_ttl=300)
    other = upstream.put_blob(str(PRIVATE), b"another blob")

    async def act() -> bytes:
        for service in (first, second):
            await service.parts.caller_identities().remember(
                ALICE, IssuedToken("upstream-token-of-alice=", 9999, 1_800_000_000)
            )
            await service.blob(ALICES, PRIVATE)
        upstream.refuse = lambda _: challenged()
        with pytest.raises(Unauthorized):
            await first.blob(ALICES, PRIVATE, other)
        second.clock.advance(5)  # so long a worker believes what it remembers
        return await second.blob(ALICES, PRIVATE)

    with pytest.raises(Unauthorized):
        first.run(act())


def test_a_404_kills_the_link_at_every_worker() -> None:
    upstream = watched()
    first, second = processes(upstream, grant_ttl=300)

    async def act() -> bytes:
        for service in (first, second):
            await service.parts.caller_identities().remember(
                ALICE, IssuedToken("upstream-token-of-alice=", 9999, 1_800_000_000)
            )
            await service.blob(ALICES, PRIVATE)
        first.clock.advance(301)
        del upstream.blobs[str(PRIVATE), str(LAYER_DIGEST)]
        with pytest.raises(BlobUnknown):
            await first.blob(ALICES, PRIVATE)
        await second.manifest(ALICES, PRIVATE)  # which renews the grant
        return await second.blob(ALICES, PRIVATE)

    with pytest.raises(BlobUnknown):
        first.run(act())


def test_an_account_that_passes_its_login_is_a_caller_too() -> None:
    upstream = watched("basic")
    service = Service(upstream)

    async def act() -> None:
        await service.blob(basic(ALICE), PRIVATE)
        upstream.asked.clear()
        await service.blob(basic(ALICE), PRIVATE)
        assert upstream.asked == []
        with pytest.raises(Unauthorized):
            await service.blob(None, PRIVATE)
        await service.blob(basic(BOB), PRIVATE)
        assert len(upstream.asked) == 3

    service.run(act())
