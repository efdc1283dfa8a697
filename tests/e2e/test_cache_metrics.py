"""The cache metrics in `/metrics`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, Cached, cached, faulty_upstream, pull
from tests.e2e.support.service import Serving

pytestmark = pytest.mark.real()


@pytest.fixture
def service(serve: Serving, tmp_path: Path) -> Iterator[Cached]:
    """A mirror with one worker, so that each counter is exact."""
    with (
        faulty_upstream(tmp_path, tmp_path / "files") as upstream,
        cached(serve, upstream, tmp_path / "cache", WORKERS="1") as found,
    ):
        yield found


def test_the_cache_counters_are_exact_and_contain_no_names_or_digests(service: Cached) -> None:
    def counted(name: str) -> float:
        return service.counted(name, workers=1)

    blob = service.warm(MIB)
    assert (counted("misses_total"), counted("hits_total"), counted("fills_total")) == (1, 0, 1)
    assert service.gives(blob)
    assert service.gives(blob)
    assert (counted("misses_total"), counted("hits_total"), counted("fills_total")) == (1, 2, 1)
    assert MIB <= counted("upstream_bytes_total") < 1.1 * MIB
    assert 3 * MIB <= counted("client_bytes_total") < 3.3 * MIB
    for quiet in ("fill_resumes_total", "stale_answers_total", "evictions_total", "wrong_content_total"):
        assert counted(quiet) == 0, quiet
    page = pull(service.proxy.port, "/metrics")
    assert page.headers["Content-Type"].startswith("text/plain")
    for secret in (blob.digest.encode(), blob.digest[7:19].encode(), b"e2e/cached"):
        assert secret not in page.body


def test_a_request_that_joins_a_running_fill_is_counted(service: Cached) -> None:
    blob = service.upstream.blob(MIB)
    service.upstream.control({"path": blob.digest, "hold_after": MIB // 2})
    with service.proxy.open(blob.path) as first, service.proxy.open(blob.path) as second:
        assert service.upstream.holds()
        service.upstream.control()
        assert first.read() == second.read() == blob.content
    assert service.counted("fill_joins_total", workers=1) == 1
    assert service.counted("fills_total", workers=1) == 1
