"""A cache of 16 MiB: what it evicts for requests that add no content, and how much the upstream sends for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, cached, faulty_upstream
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Serving

pytestmark = pytest.mark.real()


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "room-upstream") as running_one:
        yield running_one


@pytest.fixture
def service(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> Iterator[Cached]:
    with cached(serve, upstream, tmp_path / "cache", CACHE_SIZE="16MiB") as found:
        for _ in range(14):
            found.warm()
        yield found
    assert found.cache.wrong() == []
    upstream.control()


def test_one_byte_of_a_large_blob_evicts_nothing(service: Cached) -> None:
    blob = service.upstream.blob(6 * MIB)
    before = service.cache.content_size()
    pulled = service.pull(blob, Range="bytes=0-0")
    assert (pulled.status, pulled.body) == (206, blob.content[:1])
    assert not wait_until(lambda: service.cache.content_size() < before, 1)
    assert service.cache.partial_bytes() == 1


def test_the_upstream_sends_each_requested_byte_once(service: Cached) -> None:
    blobs = [service.upstream.blob(2 * MIB) for _ in range(5)] * 2
    mark = service.upstream.mark()
    for blob in blobs:
        assert service.pull(blob, Range="bytes=1-1").body == blob.content[1:2]
    assert not wait_until(lambda: sum(entry["sent"] for entry in service.upstream.log(mark)) > 5, 1)
    assert sum(entry["sent"] for entry in service.upstream.log(mark)) == 5


def test_a_body_without_a_length_leaves_content_in_the_cache(service: Cached) -> None:
    blob = service.upstream.blob(40 * MIB)
    service.upstream.control({"path": blob.digest, "chunked": True})
    assert service.gives(blob)
    assert service.cache.content_size() >= 9 * MIB
    assert wait_until(lambda: service.cache.partial_bytes() == 0, 10)


def test_a_blob_that_takes_most_of_the_cache_is_cached(service: Cached) -> None:
    blob = service.upstream.blob(11 * MIB)
    assert service.gives(blob)
    assert wait_until(lambda: service.cache.file(blob.digest).exists(), 10)


def test_a_blob_that_is_too_large_for_the_cache_is_served_and_evicts_nothing(service: Cached) -> None:
    blob = service.upstream.blob(13 * MIB)
    before = service.cache.content_size()
    assert service.gives(blob)
    assert service.cache.content_size() == before
    assert not service.cache.file(blob.digest).exists()
