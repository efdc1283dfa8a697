"""The contract of PinIndex, and of UsageIndex as far as pins matter to it."""

from dataclasses import replace

from application.ports.index import Stored, Used
from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.pins import Pin, PinnedImage
from tests.contracts.storage import HUB, QUAY, Worker, by_two_workers

MANIFEST, LAYER, OTHER = (Digest.of(bytes([number])) for number in range(3))
NGINX_PIN = Pin(HUB.url, RepositoryName("library/nginx"), Reference.parse("1.25"), ("linux/amd64", "linux/arm64/v8"))
REDIS_PIN = Pin(HUB.url, RepositoryName("library/redis"), Reference(OTHER))
AT_QUAY = replace(NGINX_PIN, upstream_url=QUAY.url)
PINNED = PinnedImage(
    NGINX_PIN, 100.125, MANIFEST, {MANIFEST: 400, LAYER: 2**40}, 200.5, 300.75, 'said "no" \N{SNOWMAN} \udcff'
)


@by_two_workers
async def test_a_pinned_image_is_known_to_all_workers_with_all_that_is_known_of_it(one: Worker, other: Worker) -> None:
    assert list(await one.pins.all()) == []
    await one.pins.keep(PINNED)
    await one.pins.keep(PinnedImage(REDIS_PIN, 101.0))
    await one.pins.keep(PinnedImage(AT_QUAY, 102.0))
    pinned = [PINNED, PinnedImage(REDIS_PIN, 101.0), PinnedImage(AT_QUAY, 102.0)]
    assert list(await other.pins.all()) == list(await one.pins.all()) == pinned


@by_two_workers
async def test_a_pin_with_the_same_key_replaces_the_other(one: Worker, other: Worker) -> None:
    await one.pins.keep(PINNED)
    again = PinnedImage(replace(NGINX_PIN, platforms=()), 101.0)
    await other.pins.keep(again)
    assert list(await one.pins.all()) == [again]


@by_two_workers
async def test_an_image_that_was_unpinned_is_forgotten(one: Worker, other: Worker) -> None:
    await one.pins.keep(PINNED)
    await one.pins.keep(PinnedImage(REDIS_PIN, 101.0))
    assert not await other.pins.forget(AT_QUAY)
    assert await other.pins.forget(replace(NGINX_PIN, platforms=()))
    assert not await one.pins.forget(NGINX_PIN)
    assert list(await one.pins.all()) == [PinnedImage(REDIS_PIN, 101.0)]


@by_two_workers
async def test_an_update_replaces_what_is_known_of_the_image(one: Worker, other: Worker) -> None:
    await one.pins.keep(PinnedImage(NGINX_PIN, PINNED.pinned_at))
    await one.pins.keep(PinnedImage(REDIS_PIN, PINNED.pinned_at))
    await other.pins.update(PINNED)
    assert list(await one.pins.all()) == [PINNED, PinnedImage(REDIS_PIN, PINNED.pinned_at)]


@by_two_workers
async def test_a_late_update_does_not_bring_back_an_image_that_was_unpinned(one: Worker, other: Worker) -> None:
    await one.pins.keep(PINNED)
    await one.pins.forget(NGINX_PIN)
    await other.pins.update(PINNED)
    assert list(await one.pins.all()) == []


@by_two_workers
async def test_a_late_update_does_not_change_an_image_that_was_pinned_again(one: Worker, other: Worker) -> None:
    await one.pins.keep(PINNED)
    again = PinnedImage(NGINX_PIN, 101.0)
    await one.pins.keep(again)
    await other.pins.update(PINNED)
    assert list(await one.pins.all()) == [again]


@by_two_workers
async def test_one_worker_checks_the_pinned_images_at_a_time(one: Worker, other: Worker) -> None:
    assert [await worker.pins.lead(60) for worker in (one, other, one, other)] == [True, False, True, False]
    await one.pins.lead(0)
    assert [await worker.pins.lead(60) for worker in (other, one)] == [True, False]


USES = [Used(digest, number + 1, 10.0 + number) for number, digest in enumerate((MANIFEST, LAYER, OTHER))]


@by_two_workers
async def test_content_that_a_pinned_image_needs_is_not_evictable(one: Worker, other: Worker) -> None:
    await one.usage.keep(USES)
    assert (await one.usage.evictable(), await one.usage.pinned()) == (USES, Stored())
    await one.pins.keep(PINNED)
    await one.pins.keep(PinnedImage(AT_QUAY, 1.0, LAYER, {LAYER: 2}))
    assert (await other.usage.evictable(), await other.usage.pinned()) == (USES[2:], Stored(2, 3))
    await other.pins.forget(NGINX_PIN)
    assert (await one.usage.evictable(), await one.usage.pinned()) == ([USES[0], USES[2]], Stored(1, 2))
    await one.pins.forget(AT_QUAY)
    assert (await other.usage.evictable(), await other.usage.pinned()) == (USES, Stored())


@by_two_workers
async def test_pinned_content_that_is_not_stored_does_not_count(one: Worker, other: Worker) -> None:
    await one.pins.keep(PINNED)
    assert (await other.usage.evictable(), await other.usage.pinned()) == ([], Stored())
