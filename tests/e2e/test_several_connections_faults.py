"""The upstream sends wrong answers while the mirror fetches a blob over several connections."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import KIB, Cached, FaultyUpstream, Made, cached, faulty_upstream
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Serving
from tests.e2e.support.several_connections import SIZE, are_right, limited, parts, pulling, sent

pytestmark = pytest.mark.real()


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "parts-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    with cached(serve, upstream, workplace / "parts-cache") as found:
        yield found
    assert found.cache.wrong() == []


@pytest.fixture
def blob(upstream: FaultyUpstream) -> Iterator[Made]:
    yield upstream.blob(SIZE)
    upstream.control()


def is_healed(service: Cached, blob: Made) -> bool:
    """Whether one client of each worker receives the complete blob, and the cache has it then."""
    with pulling(service, blob) as clients:
        return are_right(clients, blob) and service.cache.holds(blob)


def test_a_part_that_is_cut_is_fetched_again_alone(service: Cached, blob: Made) -> None:
    service.upstream.control(*limited(blob, {"cut_after": 300 * KIB, "times": 2}))
    assert is_healed(service, blob)
    cut = [entry for entry in parts(service.upstream, blob) if entry["sent"] == 300 * KIB]
    assert len(cut) == 2
    assert sent(service.upstream, blob) <= 1.25 * SIZE, "the bytes that had arrived are not fetched again"


OTHER_PARTS = {
    "a later beginning": ({"shift": 4 * KIB}, "a different byte range"),
    "another total": ({"adds_to_total": -1}, "a blob with another length"),
    "the whole blob": ({"ignore_range": True}, "the whole blob instead of a part"),
    "an error for the range": ({"status": 416}, "refused a byte range"),
}
"""Each with a part of the warning about it."""


@pytest.mark.parametrize("fault", OTHER_PARTS)
def test_clients_do_not_notice_an_answer_with_another_part(service: Cached, blob: Made, fault: str) -> None:
    rule, reason = OTHER_PARTS[fault]
    service.upstream.control(*limited(blob, rule))
    assert is_healed(service, blob)
    assert any(blob.digest in line and reason in line for line in service.complaints())


@pytest.mark.parametrize("status", [429, 503])
def test_clients_do_not_notice_that_requests_for_parts_are_refused(service: Cached, blob: Made, status: int) -> None:
    service.upstream.control(*limited(blob))
    with pulling(service, blob) as clients:
        assert service.upstream.sends(2)
        service.upstream.control(*limited(blob, {"status": status, "retry_after": "1", "times": 2}))
        assert are_right(clients, blob)
    assert service.cache.holds(blob)
    assert [entry["status"] for entry in parts(service.upstream, blob)].count(status) == 2


@pytest.mark.parametrize("offset", [SIZE // 2, SIZE - 1], ids=["in the middle", "at the end"])
def test_a_blob_with_a_wrong_part_is_fetched_again_over_one_connection(
    service: Cached, blob: Made, offset: int
) -> None:
    wrong, first, _ = limited(blob, {"flip_at": offset})
    service.upstream.control(wrong, first)
    with pulling(service, blob) as clients:
        pulled = [client.result() for client in clients]
    assert not any(one.whole for one in pulled)
    assert all(len(one.body) < SIZE for one in pulled)
    assert wait_until(lambda: service.cache.holds(blob, 1), 30), "it is fetched again without a client"
    whole = [entry for entry in service.upstream.gets(blob.path) if not entry["range"] and entry["sent"] == SIZE]
    assert whole
    since = service.upstream.mark()
    assert service.gives(blob)
    assert service.upstream.gets(blob.path, since) == []
