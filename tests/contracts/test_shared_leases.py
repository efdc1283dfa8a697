"""The contract of SharedLeases, against a real Valkey and against the fake."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application.ports.shared import FollowedLease, SharedLease, SharedProgress, SharedUnavailable
from domain.digest import Digest
from tests.contracts.shared_leases import (
    DIGEST,
    TwoReplicas,
    by_two_replicas,
    followed,
    held,
    part,
    two_replicas,
)
from tests.contracts.storage import HUB, QUAY
from tests.e2e.support.valkey import Valkey

NOTHING = SharedProgress((), None, is_held=False)


@by_two_replicas
async def test_one_replica_gets_the_lease_and_the_other_follows(replicas: TwoReplicas) -> None:
    lease, follower = await held(replicas.one), await followed(replicas.other)
    assert lease.found == NOTHING
    assert not lease.is_lost
    assert await follower.look() == SharedProgress((), None, is_held=True)


@by_two_replicas
async def test_a_follower_sees_each_part_as_it_is_published(replicas: TwoReplicas) -> None:
    lease, follower = await held(replicas.one), await followed(replicas.other)
    first, second, third = part(0, lease), part(10, lease, 20), part(30, lease, 1)
    assert await lease.publish(first, None)
    assert await follower.look() == SharedProgress((first,), None, is_held=True)
    assert await lease.publish(second, 31)
    assert await lease.publish(third, None)
    for each in (follower, await followed(replicas.other)):
        assert await each.look() == SharedProgress((first, second, third), 31, is_held=True)


@by_two_replicas
async def test_of_many_requests_of_two_replicas_one_replica_gets_the_lease(replicas: TwoReplicas) -> None:
    requests = [replica.lease(HUB, DIGEST) for replica in (replicas.one, replicas.other) * 20]
    leases = await asyncio.gather(*requests)
    winners = {index % 2 for index, lease in enumerate(leases) if not isinstance(lease, FollowedLease)}
    assert len(winners) == 1
    # A replica takes its own lease over, so only the last one counts.
    assert [
        await lease.publish(part(0, lease), None) for lease in leases if not isinstance(lease, FollowedLease)
    ].count(True) == 1


@by_two_replicas
async def test_kept_parts_are_found_by_the_next_holder(replicas: TwoReplicas) -> None:
    lease, follower = await held(replicas.one), await followed(replicas.other)
    first = part(0, lease)
    await lease.publish(first, 20)
    await lease.release(keep=True)
    assert lease.is_lost
    assert await follower.look() == SharedProgress((first,), 20, is_held=False)
    again = await held(replicas.other)
    assert again.found == SharedProgress((first,), 20, is_held=False)
    second = part(10, again)
    assert await again.publish(second, None)
    assert await follower.look() == SharedProgress((first, second), 20, is_held=True)


@by_two_replicas
async def test_the_progress_can_be_read_without_a_request_for_the_lease(replicas: TwoReplicas) -> None:
    assert await replicas.one.progress(HUB.fingerprint, DIGEST) == NOTHING
    lease = await held(replicas.one)
    first = part(0, lease)
    await lease.publish(first, 20)
    for leases in (replicas.one, replicas.other):
        assert await leases.progress(HUB.fingerprint, DIGEST) == SharedProgress((first,), 20, is_held=True)
    await lease.release(keep=True)
    assert await replicas.other.progress(HUB.fingerprint, DIGEST) == SharedProgress((first,), 20, is_held=False)
    assert await replicas.other.progress(QUAY.fingerprint, DIGEST) == NOTHING


@by_two_replicas
async def test_parts_that_are_not_kept_are_forgotten(replicas: TwoReplicas) -> None:
    lease, follower = await held(replicas.one), await followed(replicas.other)
    await lease.publish(part(0, lease), 20)
    assert (await follower.look()).parts
    await lease.release(keep=False)
    assert await follower.look() == NOTHING
    again = await held(replicas.other)
    assert again.found == NOTHING
    new = part(0, again)
    await again.publish(new, None)
    assert await follower.look() == SharedProgress((new,), None, is_held=True)


@by_two_replicas
async def test_another_worker_of_the_same_replica_takes_the_lease_over_at_once(replicas: TwoReplicas) -> None:
    lease = await held(replicas.one)
    first = part(0, lease)
    await lease.publish(first, None)
    again = await held(replicas.worker_of_one)
    assert again.id != lease.id
    assert again.found.parts == (first,)
    assert not await lease.publish(part(10, lease), None)
    assert lease.is_lost
    assert (await (await followed(replicas.other)).look()).parts == (first,)


@by_two_replicas
async def test_a_lease_that_is_not_renewed_ends_and_its_holder_knows(replicas: TwoReplicas) -> None:
    lease, follower = await held(replicas.one), await followed(replicas.other)
    first = part(0, lease)
    await lease.publish(first, 20)
    await replicas.index.let_leases_end(replicas.one)
    assert lease.is_lost
    assert not (await follower.look()).is_held
    again = await held(replicas.other)
    assert again.found.parts == (first,)
    assert not await lease.publish(part(10, lease), None)
    assert (await follower.look()).parts == (first,)


@by_two_replicas
async def test_the_release_of_a_lost_lease_does_not_end_the_next_one(replicas: TwoReplicas) -> None:
    lease = await held(replicas.one)
    await lease.publish(part(0, lease), 20)
    await replicas.index.let_leases_end(replicas.one)
    again, follower = await held(replicas.other), await followed(replicas.one)
    await lease.release(keep=False)
    assert await follower.look() == SharedProgress(again.found.parts, 20, is_held=True)
    assert await again.publish(part(10, again), None)


@by_two_replicas
async def test_a_lease_can_be_released_twice(replicas: TwoReplicas) -> None:
    lease = await held(replicas.one)
    await lease.release(keep=True)
    again = await held(replicas.other)
    await lease.release(keep=False)
    assert await again.publish(part(0, again), None)


@by_two_replicas
async def test_two_upstreams_and_two_digests_have_separate_leases(replicas: TwoReplicas) -> None:
    leases = [
        await held(replicas.one, DIGEST, HUB),
        await held(replicas.other, DIGEST, QUAY),
        await held(replicas.other, Digest.of(b"another layer"), HUB),
    ]
    for size, lease in enumerate(leases, 1):
        assert await lease.publish(part(0, lease, size), size)
    assert (await (await followed(replicas.one, DIGEST, QUAY)).look()).total == 2


@by_two_replicas
async def test_a_silent_index_is_reported_and_ends_no_download(replicas: TwoReplicas) -> None:
    lease, follower = await held(replicas.one), await followed(replicas.other)
    await replicas.index.stop()
    with pytest.raises(SharedUnavailable):
        await follower.look()
    with pytest.raises(SharedUnavailable):
        await replicas.other.lease(HUB, Digest.of(b"another layer"))
    await lease.publish(part(0, lease), None)
    await lease.release(keep=True)
    assert lease.is_lost


@dataclass
class _Play:
    """What two replicas do, as it looks from outside. Parts are compared by offset and size: their keys are random."""

    replicas: TwoReplicas
    leases: list[SharedLease] = field(default_factory=list)
    followers: list[FollowedLease] = field(default_factory=list)
    seen: list[object] = field(default_factory=list)

    async def step(self, action: str, number: int) -> None:
        match action:
            case "lease":
                replica = (self.replicas.one, self.replicas.other, self.replicas.worker_of_one)[number % 3]
                lease = await replica.lease(HUB, DIGEST)
                if isinstance(lease, FollowedLease):
                    self.followers.append(lease)
                    self.seen.append("followed")
                else:
                    self.leases.append(lease)
                    self.seen.append(_shape(lease.found))
            case "publish" if self.leases:
                lease = self.leases[number % len(self.leases)]
                total = number if number % 3 == 0 else None
                self.seen.append(await lease.publish(part(number, lease), total))
            case "keep" | "forget" if self.leases:
                lease = self.leases[number % len(self.leases)]
                await lease.release(keep=action == "keep")
                self.seen.append(lease.is_lost)
            case "look" if self.followers:
                self.seen.append(_shape(await self.followers[number % len(self.followers)].look()))


def _shape(progress: SharedProgress) -> object:
    return [(each.offset, each.size) for each in progress.parts], progress.total, progress.is_held


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("lease", "lease", "publish", "publish", "keep", "forget", "look", "look")), st.integers(0, 99)
    ),
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(steps=STEPS)
def test_any_sequence_of_steps_has_the_same_effects_on_valkey_and_on_the_fake(
    steps: list[tuple[str, int]], valkey_server: Valkey
) -> None:
    async def played(kind: str) -> list[object]:
        async with two_replicas(kind, valkey_server) as replicas:
            play = _Play(replicas)
            for action, number in steps:
                await play.step(action, number)
            return play.seen

    assert asyncio.run(played("real")) == asyncio.run(played("fake"))
