"""What every TagIndex does."""

from dataclasses import replace

from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CLASS, PERSONAL_CLASS, CachedTag, TagKey
from tests.contracts.storage import HUB, NGINX, NGINX_AT_QUAY, QUAY, REDIS, Worker, by_two_workers

LATEST = Tag("latest")
KEY = TagKey(NGINX, LATEST, "a,b")
MARK = CachedTag(KEY, Digest.of(b"one"), "application/json", 1_800_000_000.25, ANONYMOUS_CLASS)
OTHERS = [
    replace(KEY, variant=""),
    replace(KEY, tag=Tag("Latest")),
    replace(KEY, source=REDIS),
    replace(KEY, source=NGINX_AT_QUAY),
]


def cached_tag(number: int, checked_at: float) -> CachedTag:
    return replace(MARK, key=replace(KEY, variant=str(number)), checked_at=checked_at)


async def marked(worker: Worker, key: TagKey) -> CachedTag | None:
    """The mark of this very variant."""
    return next((one for one in await worker.tags.variants(key.source, key.tag) if one.key == key), None)


@by_two_workers
async def test_what_is_kept_is_found_by_all_under_that_key_alone(one: Worker, other: Worker) -> None:
    assert await marked(one, KEY) is None
    await one.tags.keep(MARK)
    assert await marked(one, KEY) == await marked(other, KEY) == MARK
    assert [await marked(one, key) for key in OTHERS] == [None] * len(OTHERS)


@by_two_workers
async def test_a_mark_replaces_the_one_before(one: Worker, other: Worker) -> None:
    await one.tags.keep(MARK)
    newer = CachedTag(KEY, Digest.of(b"two", "sha512"), "text/plain", MARK.checked_at + 1, ANONYMOUS_CLASS)
    await other.tags.keep(newer)
    assert await marked(one, KEY) == newer


@by_two_workers
async def test_a_tag_is_forgotten_with_all_variants(one: Worker, other: Worker) -> None:
    for key in (KEY, *OTHERS):
        await one.tags.keep(replace(MARK, key=key))
    for _ in range(2):
        await other.tags.forget(NGINX, LATEST)
    found = [await marked(one, key) for key in (KEY, *OTHERS)]
    assert [found_mark is None for found_mark in found] == [True, True, False, False, False]


@by_two_workers
async def test_all_tags_of_a_repository_are_forgotten(one: Worker, other: Worker) -> None:
    for key in (KEY, *OTHERS):
        await one.tags.keep(replace(MARK, key=key))
    await other.tags.forget(NGINX, None)
    found = [await marked(one, key) for key in (KEY, *OTHERS)]
    assert [found_mark is None for found_mark in found] == [True, True, True, False, False]


@by_two_workers
async def test_all_marks_of_an_upstream_are_listed(one: Worker, other: Worker) -> None:
    assert await one.tags.of(HUB) == []
    for key in (KEY, *OTHERS):
        await one.tags.keep(replace(MARK, key=key))
    assert {each.key for each in await other.tags.of(HUB)} == {KEY, *OTHERS[:3]}
    assert await other.tags.of(QUAY) == [replace(MARK, key=OTHERS[3])]


@by_two_workers
async def test_of_many_variants_the_oldest_make_room(one: Worker, other: Worker) -> None:
    await one.tags.keep(replace(MARK, key=OTHERS[1]))
    for number in range(16):
        await one.tags.keep(cached_tag(number, 1000.0 + (number - 5) % 16))  # the sixth is the oldest
    await one.tags.keep(cached_tag(16, 2000.0))
    found = [await marked(one, cached_tag(number, 0).key) for number in range(17)]
    assert [number for number, each in enumerate(found) if each is None] == [5]
    assert await marked(one, OTHERS[1])


@by_two_workers
async def test_the_newest_mark_is_kept_even_when_all_are_of_one_moment(one: Worker, other: Worker) -> None:
    for number in range(40):
        await one.tags.keep(cached_tag(number, 1000.0))
        assert await marked(one, cached_tag(number, 0).key)
    assert len(await one.tags.of(HUB)) == 16


@by_two_workers
async def test_an_upstream_is_known_by_its_address(one: Worker, other: Worker) -> None:
    await one.tags.keep(MARK)
    upstream = replace(HUB, search_url="https://search.test")
    key = replace(KEY, source=replace(NGINX, upstream=upstream))
    assert await marked(one, key) == replace(MARK, key=key)
    assert await one.tags.of(upstream) == [replace(MARK, key=key)]


@by_two_workers
async def test_each_class_of_callers_has_a_mark_of_its_own(one: Worker, other: Worker) -> None:
    personal = replace(MARK, digest=Digest.of(b"two"), given_to=PERSONAL_CLASS)
    await one.tags.keep(MARK)
    await other.tags.keep(personal)
    assert set(await one.tags.variants(NGINX, LATEST)) == {MARK, personal}
    await one.tags.forget(NGINX, LATEST, ANONYMOUS_CLASS)
    assert await other.tags.variants(NGINX, LATEST) == [personal]


@by_two_workers
async def test_variants_of_one_class_do_not_push_out_those_of_another(one: Worker, other: Worker) -> None:
    await one.tags.keep(replace(MARK, checked_at=1.0))
    for number in range(17):
        await other.tags.keep(replace(cached_tag(number, 1000.0 + number), given_to=PERSONAL_CLASS))
    found = await one.tags.variants(NGINX, LATEST)
    assert sum(each.given_to == PERSONAL_CLASS for each in found) == 16
    assert sum(each.given_to == ANONYMOUS_CLASS for each in found) == 1
