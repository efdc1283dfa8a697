"""What every LinkIndex does."""

from dataclasses import replace

from domain.digest import Digest
from domain.records import ANONYMOUS_CLASS, PERSONAL_CLASS, CallerClass, ContentKind, Item, Link
from tests.contracts.storage import HUB, NGINX, NGINX_AT_QUAY, REDIS, Worker, by_two_workers

DIGEST = Digest.of(b"content")
NOW = 1_800_000_000.0
ANYBODY = frozenset({ANONYMOUS_CLASS})
BLOB = Link(Item(NGINX, ContentKind.BLOB, DIGEST), "application/octet-stream", 7, ANYBODY)
MANIFEST = Link(Item(NGINX, ContentKind.MANIFEST, DIGEST), "application/vnd.oci.image.index.v1+json", None, ANYBODY)
ELSEWHERE = [replace(BLOB, item=replace(BLOB.item, source=source)) for source in (REDIS, NGINX_AT_QUAY)]


@by_two_workers
async def test_what_is_kept_is_found_by_all(one: Worker, other: Worker) -> None:
    for link in (BLOB, MANIFEST):
        assert await one.links.find(link.item) is None
        await one.links.keep(link, NOW)
        assert await one.links.find(link.item) == await other.links.find(link.item) == link


@by_two_workers
async def test_a_link_is_for_exactly_one_repository_kind_and_digest(one: Worker, other: Worker) -> None:
    await one.links.keep(BLOB, NOW)
    others = [MANIFEST.item, *(link.item for link in ELSEWHERE), replace(BLOB.item, digest=Digest.of(b"other"))]
    others.append(replace(BLOB.item, digest=Digest.of(b"content", "sha512")))
    assert [await one.links.find(item) for item in others] == [None] * len(others)


@by_two_workers
async def test_a_link_replaces_the_one_before(one: Worker, other: Worker) -> None:
    await one.links.keep(BLOB, NOW)
    newer = replace(BLOB, media_type="text/plain; charset=é", size=2**40)
    await other.links.keep(newer, NOW)
    assert await one.links.find(BLOB.item) == newer
    assert await one.links.of(NGINX) == [newer]


@by_two_workers
async def test_what_is_forgotten_is_not_found(one: Worker, other: Worker) -> None:
    for link in (BLOB, MANIFEST, *ELSEWHERE):
        await one.links.keep(link, NOW)
    for _ in range(2):
        await other.links.forget(BLOB.item)
    assert await one.links.find(BLOB.item) is None
    assert [await one.links.find(link.item) for link in (MANIFEST, *ELSEWHERE)] == [MANIFEST, *ELSEWHERE]


@by_two_workers
async def test_all_links_of_a_repository_are_listed(one: Worker, other: Worker) -> None:
    assert await one.links.of(NGINX) == []
    for link in (BLOB, MANIFEST, *ELSEWHERE):
        await one.links.keep(link, NOW)
    assert set(await other.links.of(NGINX)) == {BLOB, MANIFEST}
    assert await other.links.of(NGINX_AT_QUAY) == ELSEWHERE[1:]


@by_two_workers
async def test_an_upstream_is_known_by_its_address(one: Worker, other: Worker) -> None:
    await one.links.keep(BLOB, NOW)
    source = replace(NGINX, upstream=replace(HUB, search_url="https://search.test"))
    item = replace(BLOB.item, source=source)
    assert await one.links.find(item) == replace(BLOB, item=item)
    assert await one.links.of(source) == [replace(BLOB, item=item)]


@by_two_workers
async def test_a_link_knows_all_classes_that_it_was_given_to(one: Worker, other: Worker) -> None:
    mirror = CallerClass("mirror 1")
    await one.links.keep(BLOB, NOW)
    await other.links.keep(replace(BLOB, size=8, given_to=frozenset({PERSONAL_CLASS, mirror})), NOW + 1)
    assert await one.links.find(BLOB.item) == replace(BLOB, size=8, given_to=ANYBODY | {PERSONAL_CLASS, mirror})
    assert await one.links.of(NGINX) == [await other.links.find(BLOB.item)]


@by_two_workers
async def test_a_link_is_forgotten_for_one_class_and_stays_for_the_others(one: Worker, other: Worker) -> None:
    await one.links.keep(replace(BLOB, given_to=ANYBODY | {PERSONAL_CLASS}), NOW)
    await one.links.keep(MANIFEST, NOW)
    for _ in range(2):
        await other.links.forget(BLOB.item, ANONYMOUS_CLASS)
    assert await one.links.find(BLOB.item) == replace(BLOB, given_to=frozenset({PERSONAL_CLASS}))
    await other.links.forget(BLOB.item, PERSONAL_CLASS)
    assert await one.links.find(BLOB.item) is None
    assert await one.links.find(MANIFEST.item) == MANIFEST
