"""The contract of UsageIndex."""

from dataclasses import replace

from application.ports.index import Stored, Used
from domain.digest import Digest
from tests.contracts.storage import HUB, QUAY, Worker, by_two_workers

A, B, C = (Used(Digest.of(bytes([number])), number, 100.5 + number) for number in range(3))


@by_two_workers
async def test_entries_are_ordered_from_least_to_most_recently_used(one: Worker, other: Worker) -> None:
    assert await one.usage.all() == []
    await one.usage.keep([C, A])
    await other.usage.keep([B])
    assert await one.usage.all() == await other.usage.all() == [A, B, C]


@by_two_workers
async def test_a_known_entry_is_replaced(one: Worker, other: Worker) -> None:
    await one.usage.keep([A, B])
    newer = replace(A, size=2**40, used_at=1000.0)
    await other.usage.keep([newer])
    assert await one.usage.all() == [B, newer]


@by_two_workers
async def test_a_touch_sets_the_time_of_known_content_only(one: Worker, other: Worker) -> None:
    await one.usage.keep([A, B])
    await other.usage.touch({A.digest: 1000.0, C.digest: 1000.0})
    assert await one.usage.all() == [B, replace(A, used_at=1000.0)]


@by_two_workers
async def test_a_late_touch_does_not_set_an_older_time(one: Worker, other: Worker) -> None:
    await one.usage.keep([B])
    await one.usage.touch({B.digest: 1.0})
    assert await one.usage.all() == [B]


@by_two_workers
async def test_forgotten_content_is_not_listed(one: Worker, other: Worker) -> None:
    await one.usage.keep([A, B, C])
    await other.usage.forget([A.digest, C.digest])
    await other.usage.forget([A.digest])
    assert await one.usage.all() == [B]


@by_two_workers
async def test_empty_lists_change_nothing(one: Worker, other: Worker) -> None:
    await one.usage.keep([])
    await one.usage.touch({})
    await one.usage.forget([])
    assert await one.usage.all() == []


@by_two_workers
async def test_content_is_found_by_its_digest(one: Worker, other: Worker) -> None:
    await one.usage.keep([A, B])
    assert await other.usage.find([C.digest, A.digest]) == {A.digest: A}
    assert await other.usage.find([]) == {}


@by_two_workers
async def test_stored_content_counts_for_each_upstream_that_has_sent_it(one: Worker, other: Worker) -> None:
    assert await one.usage.by_upstream() == {}
    await one.usage.keep([replace(A, size=100), replace(B, size=20)])
    assert await one.usage.by_upstream() == {}
    for upstream, content in ((HUB, A), (HUB, B), (QUAY, B), (HUB, C)):  # C is not stored
        await one.index.keep_sent(upstream, content.digest, is_public=True)
    assert await other.usage.by_upstream() == {HUB.url: Stored(2, 120), QUAY.url: Stored(1, 20)}
    await one.usage.forget([B.digest])
    assert await other.usage.by_upstream() == {HUB.url: Stored(1, 100)}
