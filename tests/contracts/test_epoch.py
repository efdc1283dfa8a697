"""What every Epoch does."""

from tests.contracts.storage import Worker, by_two_workers


@by_two_workers
async def test_the_number_stays_until_somebody_advances_it(one: Worker, other: Worker) -> None:
    seen = [await one.epoch.read()]
    for worker in (one, other, one):
        assert await one.epoch.read() == await other.epoch.read() == seen[-1]
        await worker.epoch.advance()
        assert await one.epoch.read() not in seen
        seen.append(await other.epoch.read())
