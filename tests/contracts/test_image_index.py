"""The contract of ImageIndex."""

from dataclasses import replace

from application.ports.index import Occurrence
from domain.digest import Digest
from domain.names import RepositoryName, Tag
from domain.records import (
    ANONYMOUS_CLASS,
    PERSONAL_CLASS,
    CachedTag,
    CallerClass,
    ContentKind,
    ContentLocation,
    Link,
    TagKey,
)
from domain.upstreams import Source
from tests.contracts.storage import HUB, NGINX, NGINX_AT_QUAY, QUAY, REDIS, Worker, by_two_workers

ANYONE = frozenset({ANONYMOUS_CLASS})
PERSON = frozenset({PERSONAL_CLASS})
ALL = ANYONE | PERSON
A, B, C = (Digest.of(bytes([number])) for number in range(3))


def cached(source: Source, tag: str, caller_class: CallerClass = ANONYMOUS_CLASS, variant: str = "") -> CachedTag:
    return CachedTag(TagKey(source, Tag(tag), variant), A, "application/json", 100.0, caller_class)


def link(source: Source, digest: Digest, classes: frozenset[CallerClass], kind: ContentKind) -> Link:
    return Link(ContentLocation(source, kind, digest), "application/json", 1, classes)


@by_two_workers
async def test_repositories_are_those_with_tags_for_the_classes(one: Worker, other: Worker) -> None:
    for record in (cached(NGINX, "1"), cached(NGINX, "2", PERSONAL_CLASS), cached(REDIS, "1", PERSONAL_CLASS)):
        await one.index.keep_tag(record)
    await one.index.keep_tag(cached(NGINX_AT_QUAY, "1"))
    assert await other.images.repositories(HUB, ANYONE, "", "", 9) == [NGINX.repository]
    assert await other.images.repositories(HUB, PERSON, "", "", 9) == [NGINX.repository, REDIS.repository]
    assert await other.images.repositories(HUB, ALL, "", "", 9) == [NGINX.repository, REDIS.repository]
    assert await other.images.repositories(QUAY, ALL, "", "", 9) == [NGINX_AT_QUAY.repository]
    assert await other.images.repositories(HUB, frozenset(), "", "", 9) == []


@by_two_workers
async def test_repositories_come_in_pages_and_by_a_part_of_the_name(one: Worker, other: Worker) -> None:
    names = [f"team/app{number}" for number in range(5)]
    for name in names:
        await one.index.keep_tag(cached(Source(HUB, RepositoryName(name)), "1"))
    await one.index.keep_tag(cached(NGINX, "1"))
    found = await other.images.repositories(HUB, ANYONE, "", "team/app1", 2)
    assert list(map(str, found)) == names[2:4]
    assert list(map(str, await other.images.repositories(HUB, ANYONE, "app", "", 9))) == names
    assert await other.images.repositories(HUB, ANYONE, "%", "", 9) == []


def tags(found: list[CachedTag]) -> list[str]:
    return [str(one.key.tag) for one in found]


@by_two_workers
async def test_tags_are_listed_once_in_order_and_in_pages(one: Worker, other: Worker) -> None:
    for tag, variant in (("2", "a"), ("2", "b"), ("10", ""), ("3", "")):
        await one.index.keep_tag(cached(NGINX, tag, variant=variant))
    await one.index.keep_tag(cached(NGINX, "secret", PERSONAL_CLASS))
    assert tags(await other.images.tags_in(NGINX, ANYONE, "", 9)) == ["10", "2", "3"]
    assert tags(await other.images.tags_in(NGINX, ANYONE, "10", 1)) == ["2"]
    assert tags(await other.images.tags_in(NGINX, PERSON, "", 9)) == ["secret"]
    assert await other.images.tags_in(REDIS, ALL, "", 9) == []


@by_two_workers
async def test_the_first_tags_of_many_repositories_are_those_of_the_classes_of_each(one: Worker, other: Worker) -> None:
    for source, tag, variant in (
        (NGINX, "2", "a"),
        (NGINX, "2", "b"),
        (NGINX, "10", ""),
        (NGINX, "3", ""),
        (REDIS, "7", ""),
        (NGINX_AT_QUAY, "8", ""),
    ):
        await one.index.keep_tag(cached(source, tag, variant=variant))
    await one.index.keep_tag(cached(NGINX, "0secret", PERSONAL_CLASS))
    await one.index.keep_tag(cached(REDIS, "6secret", PERSONAL_CLASS))
    found = await other.images.first_tags({NGINX: ANYONE, REDIS: ALL, NGINX_AT_QUAY: PERSON}, 2)
    assert list(found) == [NGINX, REDIS, NGINX_AT_QUAY]
    assert [list(map(str, tags)) for tags in found.values()] == [["10", "2"], ["6secret", "7"], []]
    assert await other.images.first_tags({NGINX: frozenset()}, 9) == {NGINX: []}
    assert await other.images.first_tags({}, 9) == {}


@by_two_workers
async def test_of_several_variants_of_a_tag_the_newest_is_listed(one: Worker, other: Worker) -> None:
    older, newer = cached(NGINX, "1", variant="b"), replace(cached(NGINX, "1", variant="a"), digest=B, checked_at=200.0)
    for record in (newer, older, replace(cached(NGINX, "1", PERSONAL_CLASS), digest=C, checked_at=300.0)):
        await one.index.keep_tag(record)
    assert await other.images.tags_in(NGINX, ANYONE, "", 9) == [newer]


@by_two_workers
async def test_manifests_are_those_of_the_classes_the_newest_first(one: Worker, other: Worker) -> None:
    await one.index.keep_link(link(NGINX, A, ANYONE, ContentKind.MANIFEST), 1.0)
    await one.index.keep_link(link(NGINX, B, ALL, ContentKind.MANIFEST), 2.0)
    await one.index.keep_link(link(NGINX, C, ANYONE, ContentKind.BLOB), 3.0)
    await one.index.keep_link(link(REDIS, C, ANYONE, ContentKind.MANIFEST), 4.0)
    assert await other.images.manifests_in(NGINX, ANYONE, 9) == [B, A]
    assert await other.images.manifests_in(NGINX, PERSON, 9) == [B]
    assert await other.images.manifests_in(NGINX, ANYONE, 1) == [B]


@by_two_workers
async def test_occurrences_are_found_in_all_repositories(one: Worker, other: Worker) -> None:
    await one.index.keep_link(link(NGINX, A, ALL, ContentKind.BLOB), 1.0)
    await one.index.keep_link(link(NGINX_AT_QUAY, A, ANYONE, ContentKind.BLOB), 1.0)
    await one.index.keep_link(link(REDIS, B, ANYONE, ContentKind.BLOB), 1.0)
    found = await other.images.occurrences([A, C], 9)
    assert set(found) == {
        Occurrence(HUB.url, "library/nginx", A, ANONYMOUS_CLASS),
        Occurrence(HUB.url, "library/nginx", A, PERSONAL_CLASS),
        Occurrence(QUAY.url, "library/nginx", A, ANONYMOUS_CLASS),
    }
    assert len(await other.images.occurrences([A, B], 2)) == 2
    assert await other.images.occurrences([], 9) == []
