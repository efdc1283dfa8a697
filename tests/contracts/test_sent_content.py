"""What every SentContent does."""

from domain.digest import Digest
from tests.contracts.storage import HUB, QUAY, Worker, by_two_workers

DIGEST = Digest.of(b"content")


@by_two_workers
async def test_what_nobody_sent_is_served_for_nobody(one: Worker, other: Worker) -> None:
    assert not await one.sent.serves(HUB, DIGEST)


@by_two_workers
async def test_private_content_is_served_for_the_upstream_that_sent_it(one: Worker, other: Worker) -> None:
    await one.sent.keep(HUB, DIGEST, is_public=False)
    assert await other.sent.serves(HUB, DIGEST)
    assert not await other.sent.serves(QUAY, DIGEST)
    assert not await other.sent.serves(HUB, Digest.of(b"other content"))


@by_two_workers
async def test_public_content_is_served_for_all_and_stays_public(one: Worker, other: Worker) -> None:
    await one.sent.keep(HUB, DIGEST, is_public=True)
    await other.sent.keep(HUB, DIGEST, is_public=False)
    assert await other.sent.serves(QUAY, DIGEST)


@by_two_workers
async def test_the_record_goes_with_the_content(one: Worker, other: Worker) -> None:
    await one.sent.keep(HUB, DIGEST, is_public=True)
    await other.places.forget([DIGEST])
    assert not await one.sent.serves(HUB, DIGEST)
    assert not await one.sent.serves(QUAY, DIGEST)
