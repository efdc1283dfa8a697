"""Two upstreams have the same blob: neither holds the other's clients up, and their bytes are never joined."""

import asyncio
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import UpstreamBroken
from domain.events import DownloadStarted
from domain.names import RepositoryName
from domain.trust import UpstreamIdentity
from domain.upstreams import Upstream
from entrypoints.settings import UpstreamSettings
from tests.application.support.service import Service
from tests.application.support.watched import BIG, BIG_DIGEST, PIECE, WatchedUpstream, held, shared, soon
from tests.fakes.parts import memory_storage
from tests.fakes.upstreams import FakeUpstreams

ONE, TWO = "https://a.test", "https://b.test"
NAME = RepositoryName("team/app")
AT_ONE: dict[str, str] = {}
AT_TWO = {"namespace": "b.test"}
WRONG = b"!" * len(BIG)


class Two:
    """A mirror of two upstreams; `another` is another worker of it."""

    def __init__(self) -> None:
        self.fakes = {url: WatchedUpstream("none") for url in (ONE, TWO)}
        for fake in self.fakes.values():
            fake.put_blob(str(NAME), BIG)
        self.storage = memory_storage()
        self.service = self._service(None, self.storage)

    def _service(self, clock: Any, storage: Any) -> Service:
        upstreams = tuple(UpstreamSettings(url=url, identity=UpstreamIdentity.ANONYMOUS) for url in (ONE, TWO))
        return Service(FakeUpstreams(self.fakes), clock, storage, upstreams=upstreams)

    def another(self) -> Service:
        return self._service(self.service.clock, shared(self.storage))

    def read(self, hint: dict[str, str] = AT_ONE, service: Service | None = None) -> "asyncio.Task[bytes]":
        return asyncio.create_task((service or self.service).blob(None, NAME, BIG_DIGEST, hint=hint))

    def upstream(self, url: str) -> Upstream:
        return next(one for one in self.service.parts.upstreams().upstreams if one.url == url)

    async def under_way(self, url: str, size: int = 2 * PIECE) -> None:
        downloads = self.service.parts.downloads()
        await soon(
            lambda: (
                (download := downloads.running(self.upstream(url), BIG_DIGEST)) is not None
                and download.present.length >= size
            )
        )


@pytest.mark.parametrize("same_worker", [True, False])
def test_a_client_of_the_faster_upstream_does_not_wait_for_the_slower_one(same_worker: bool) -> None:  # noqa: FBT001
    two = Two()

    async def act() -> None:
        gate = held(two.fakes[ONE])
        slow = two.read()
        await two.under_way(ONE)
        async with asyncio.timeout(20):
            assert await two.read(AT_TWO, two.service if same_worker else two.another()) == BIG
        assert not slow.done()
        gate.set()
        assert await slow == BIG

    two.service.run(act())
    store: Any = two.storage.store
    assert store.content == {BIG_DIGEST: BIG}
    assert store.partial_blobs == {}


def test_wrong_bytes_of_one_upstream_are_not_continued_with_those_of_another() -> None:
    two = Two()
    two.fakes[ONE].blobs[str(NAME), str(BIG_DIGEST)] = WRONG

    async def act() -> None:
        held(two.fakes[ONE])
        slow = two.read()
        await two.under_way(ONE)
        two.fakes[ONE].fault = UpstreamBroken("the upstream closed the connection too early")
        slow.cancel()
        await two.service.parts.downloads().close()  # the partial file stays, as after a restart
        assert await two.read(AT_TWO) == BIG

    two.service.run(act())
    assert [fetch.byte_range for fetch in two.fakes[TWO].asked] == [None]


def test_a_download_that_broke_off_goes_on_with_bytes_of_the_same_upstream() -> None:
    two = Two()

    async def act() -> None:
        held(two.fakes[ONE])
        slow = two.read()
        await two.under_way(ONE)
        slow.cancel()
        await two.service.parts.downloads().close()
        assert await two.read() == BIG

    two.service.run(act())
    assert two.fakes[ONE].asked[-1].byte_range == ByteRange(2 * PIECE, None)
    assert two.fakes[TWO].asked == []


def test_clients_of_each_upstream_share_its_download() -> None:
    two = Two()

    async def act() -> list[bytes]:
        return await asyncio.gather(*(two.read(hint) for hint in (AT_ONE, AT_TWO) for _ in range(5)))

    assert two.service.run(act()) == [BIG] * 10
    assert [len(two.fakes[url].gets) for url in (ONE, TWO)] == [1, 1]
    assert sum(isinstance(event, DownloadStarted) for event in two.service.events) == 2


def test_content_that_one_upstream_sent_too_large_is_still_tried_from_another() -> None:
    """That there was no room for what one upstream sends says nothing of the blob of another one."""
    two = Two()
    store: Any = two.storage.store

    async def act() -> None:
        store.capacity = 1
        assert await two.read() == BIG
        store.capacity = None
        assert await two.read(AT_TWO) == BIG
        await soon(lambda: BIG_DIGEST in store.content)

    two.service.run(act())


def test_all_addresses_of_an_upstream_are_one_registry_here() -> None:
    """A download that one address broke off goes on at another one: they share the partial file."""
    one = UpstreamSettings(url=ONE, identity=UpstreamIdentity.ANONYMOUS, fallbacks=("https://c.test",))
    service = Service(FakeUpstreams({}), upstreams=(one,))
    (upstream,) = service.parts.upstreams().upstreams
    assert upstream.fingerprint == Upstream(upstream.url, upstream.origin).fingerprint
    assert upstream.fingerprint != Upstream(TWO, upstream.origin).fingerprint
