"""Another process fills the blob: it is followed, and taken over when it dies."""

import asyncio
from collections import deque
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import Unauthorized, UpstreamBroken
from domain.tokens import IssuedToken
from tests.application.support.crowd import Crowd
from tests.application.support.service import ALICE, BOB, PRIVATE, Service, replace_store
from tests.application.support.watched import (
    ALICES,
    BIG,
    BIG_DIGEST,
    BOBS,
    NOBODYS,
    PIECE,
    dripping,
    held,
    shared,
    soon,
)
from tests.fakes.parts import memory_storage
from tests.fakes.storage import MemoryContentStore

WRONG = b"!" * len(BIG)


class Pair(Crowd):
    """Two processes: the first fills, the second follows."""

    def __init__(self, storage: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        storage = storage or memory_storage()
        self.service = Service(self.upstream, storage=storage, **settings)
        self.second = Service(self.upstream, self.service.clock, shared(storage), **settings)

    async def logged_in(self) -> None:
        await super().logged_in()
        for service in (self.second,):
            await service.warm_up()
            for login, header in [(ALICE, ALICES), (BOB, BOBS)]:
                token = IssuedToken(header.removeprefix("Bearer "), 3000, int(service.clock.now()))
                await service.parts.caller_identities().remember(login, token)

    def follow(self, header: str = ALICES, **others: Any) -> "asyncio.Task[bytes]":
        return asyncio.create_task(self.second.blob(header, **{"name": PRIVATE, "digest": BIG_DIGEST, **others}))

    @property
    def following(self) -> Any:
        return self.second.parts.downloads().running(self.second.parts.upstream(), BIG_DIGEST)

    async def followed(self, size: int = 2 * PIECE) -> None:
        await soon(lambda: self.following is not None and self.following.present.length >= size)

    @property
    def dead(self) -> Any:
        """The first process, as its store has it."""
        return self.service.parts.store()

    def run(self, action: Any) -> Any:
        async def both() -> Any:
            try:
                await self.logged_in()
                return await action
            finally:
                await self.second._finish(asyncio.sleep(0))

        return self.service.run(both())


def test_a_download_of_another_process_is_followed() -> None:
    pair = Pair()

    async def act() -> list[bytes]:
        gate = held(pair.upstream)
        first, second = pair.read(), None
        await pair.under_way()
        second = pair.follow()
        await pair.followed()
        gate.set()
        return await asyncio.gather(first, second)

    assert pair.run(act()) == [BIG, BIG]
    assert len(pair.upstream.gets) == 1


def test_no_reader_can_join_a_follower_that_has_ended() -> None:
    pair = Pair()

    async def act() -> None:
        gate = held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        others = asyncio.all_tasks()
        second = pair.follow()
        await pair.followed()
        (follower,) = asyncio.all_tasks() - others - {second}
        second.cancel()
        while not follower.done():  # noqa: ASYNC110 - in the turn of the event loop in which it ends
            await asyncio.sleep(0)
        assert pair.following is None
        gate.set()
        assert await first == BIG

    pair.run(act())


def test_a_follower_needs_a_permission_of_its_own() -> None:
    pair = Pair()

    async def act() -> None:
        gate = held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        for header in (NOBODYS, "Bearer somebody's"):
            with pytest.raises(Unauthorized):
                await pair.follow(header)
        second = pair.follow(BOBS)
        await pair.followed()
        gate.set()
        assert await asyncio.gather(first, second) == [BIG, BIG]

    pair.run(act())
    assert any(fetch.head and "bob" in repr(fetch.credentials.raw) for fetch in pair.upstream.asked)


def test_a_follower_takes_over_with_its_own_access_when_the_other_process_dies() -> None:
    pair = Pair()

    async def act() -> bytes:
        held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        second = pair.follow(BOBS)
        await pair.followed()
        pair.dead.die()
        got = await second
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return got

    assert pair.run(act()) == BIG
    last = pair.upstream.asked[-1]
    assert (last.byte_range, "bob" in repr(last.credentials.raw)) == (ByteRange(2 * PIECE, None), True)


def test_a_silent_process_that_lives_keeps_its_lease() -> None:
    pair = Pair()

    async def act() -> tuple[list[bytes], int]:
        gate = held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        second = pair.follow()
        await pair.followed()
        await asyncio.sleep(0.7)  # more than two looks at whether it is still alive
        files = len(pair.following._files)
        gate.set()
        return await asyncio.gather(first, second), files

    got, files = pair.run(act())
    assert got == [BIG, BIG]
    assert len(pair.upstream.gets) == 1
    assert files <= 2, "each look at a silent process opens one more file, for as long as it is silent"


def test_a_follower_keeps_receiving_while_the_upstream_is_slow() -> None:
    pair = Pair()

    async def act() -> None:
        gates = dripping(pair.upstream, 3)
        first = pair.read()
        await pair.under_way(PIECE)
        second = pair.follow()
        await pair.followed(PIECE)
        seen = []
        for gate in gates[:-1]:
            gate.set()
            await asyncio.sleep(0.1)
            seen.append(pair.following.readable_from(0, is_part=False) // PIECE)
        gates[-1].set()
        assert await asyncio.gather(first, second) == [BIG, BIG]
        assert seen == [2, 3]

    pair.run(act())


def test_a_wrong_blob_of_another_process_is_never_completed() -> None:
    pair = Pair()
    pair.upstream.blobs[str(PRIVATE), str(BIG_DIGEST)] = WRONG

    async def act() -> list[Any]:
        gate = held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        second = pair.follow()
        await pair.followed()
        gate.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    assert [type(one) for one in pair.run(act())] == [UpstreamBroken, UpstreamBroken]
    assert pair.dead.content == {}


class Swapping(MemoryContentStore):
    """Between the follower's last look and its next lease, the draft has become another one, which is right."""

    leases = 0

    async def lease(self, upstream: Any, digest: Any, *, refetch: bool = False) -> Any:
        self.leases += 1
        if self.leases == 2:
            self.disk.growing[upstream, digest].lease.end(keep=False)
            fresh = (await MemoryContentStore(self.disk).lease(upstream, digest)).partial_blob
            await fresh.write(0, deque([BIG]))
            self.fresh = fresh
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(fresh.commit()))
        return await super().lease(upstream, digest, refetch=refetch)


def test_an_old_beginning_is_never_joined_to_a_different_rest() -> None:
    pair = Pair()

    async def act() -> None:
        first: Any = await MemoryContentStore(pair.dead.disk).lease(pair.service.parts.upstream(), BIG_DIGEST)
        await first.partial_blob.write(0, deque([WRONG[: 2 * PIECE]]))
        replace_store(pair.second, Swapping(pair.dead.disk))
        with pytest.raises(UpstreamBroken):
            await pair.follow()
        assert await pair.follow() == BIG

    pair.run(act())


def test_a_follower_receives_the_whole_blob_if_the_other_process_has_no_space() -> None:
    pair = Pair()

    async def act() -> list[Any]:
        gate = held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        second = pair.follow()
        await pair.followed()
        pair.dead.capacity = 2 * PIECE
        gate.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    assert pair.run(act()) == [BIG, BIG]


def test_a_follower_without_a_reader_ends() -> None:
    pair = Pair()

    async def act() -> None:
        gate = held(pair.upstream)
        first = pair.read()
        await pair.under_way()
        second = pair.follow()
        await pair.followed()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await soon(lambda: pair.following is None)
        gate.set()
        assert await first == BIG
        assert await pair.follow() == BIG

    pair.run(act())


def test_a_blob_that_becomes_whole_while_the_follower_asks_for_the_lease_is_not_fetched_again() -> None:
    pair = Pair()

    class Slow(MemoryContentStore):
        """The second lease is asked for while the partial blob grows, and given when the blob is whole."""

        leases = 0

        async def lease(self, upstream: Any, digest: Any, *, refetch: bool = False) -> Any:
            self.leases += 1
            if self.leases == 2:
                gate.set()
                await soon(lambda: digest in self.disk.inodes)
            return await super().lease(upstream, digest, refetch=refetch)

    async def act() -> list[bytes]:
        nonlocal gate
        gate = held(pair.upstream)
        replace_store(pair.second, Slow(pair.dead.disk))
        first = pair.read()
        await pair.under_way()
        others = [pair.follow() for _ in range(3)]
        return await asyncio.gather(first, *others)

    gate = asyncio.Event()
    assert pair.run(act()) == [BIG] * 4
    assert len(pair.upstream.gets) == 1
    assert pair.dead.partial_blobs == {}, "the follower leaves no empty partial blob"


def test_a_blob_that_another_process_has_just_completed_is_adopted() -> None:
    pair = Pair()

    class Late(MemoryContentStore):
        """Content arrives between the look for it and the lease."""

        async def open(self, digest: Any) -> Any:
            return await super().open(digest) if self.leased else None

        leased = False

        async def lease(self, upstream: Any, digest: Any, *, refetch: bool = False) -> Any:
            self.leased = True
            return await super().lease(upstream, digest, refetch=refetch)

    async def act() -> bytes:
        await pair.read()
        replace_store(pair.second, Late(pair.dead.disk))
        pair.upstream.asked.clear()
        return await pair.follow(BOBS)

    assert pair.run(act()) == BIG
    assert [fetch.head for fetch in pair.upstream.asked] == [True]
