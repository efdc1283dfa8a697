"""An upstream that limits the number of manifest requests, as Docker Hub does: the mirror saves requests, shows the
remaining allowance and serves cached content after the allowance is used up.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import Cached, cached, faulty_upstream, settle
from tests.e2e.support.images import MANIFEST_TYPES, Image, make_image
from tests.e2e.support.plain_http import UpstreamResponse, send
from tests.e2e.support.service import Serving

pytestmark = pytest.mark.real()

LIMIT = 6
ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}


@pytest.fixture
def service(serve: Serving, tmp_path: Path) -> Iterator[Cached]:
    """A mirror with two workers. It checks a tag again after one second, and a grant after ten minutes."""
    with (
        faulty_upstream(tmp_path, tmp_path / "files", program="counting_upstream.py", words=(str(LIMIT),)) as upstream,
        cached(serve, upstream, tmp_path / "cache", TAG_TTL="1", GRANT_TTL="600") as found,
    ):
        yield found


def path_of(name: str, reference: str = "1") -> str:
    return f"/v2/e2e/{name}/manifests/{reference}"


def pushed(service: Cached, name: str) -> Image:
    image = make_image(name, (1000,))
    service.upstream.push(image, "1")
    return image


def by_each_worker(service: Cached, path: str, **headers: str) -> list[UpstreamResponse]:
    with service.proxy.connection_to_each_worker() as connections:
        return [send(connection, "GET", path, headers) for connection in connections]


def asked(service: Cached, since: int = 0, method: str = "GET") -> int:
    """The number of manifest requests that the upstream received."""
    entries = service.upstream.log(since)
    return len([one for one in entries if one["method"] == method and "/manifests/" in one["path"]])


def gauges(page: bytes, upstream: str) -> dict[str, float]:
    prefix = "docker_image_proxy_allowance_"
    lines = [line.partition(f'{{upstream="{upstream}"}} ') for line in page.decode().splitlines()]
    return {
        name.removeprefix(prefix): float(value) for name, found, value in lines if found and name.startswith(prefix)
    }


def test_many_clients_of_one_manifest_cost_the_upstream_one_get(service: Cached) -> None:
    image = pushed(service, "many")

    def pull(_: int) -> list[bytes]:
        head = service.proxy.request("HEAD", path_of("many"), **ACCEPT)
        whole = service.proxy.get(path_of("many", head.headers["Docker-Content-Digest"]), **ACCEPT)
        return [whole.body, service.proxy.get(path_of("many"), **ACCEPT).body]

    assert pull(0) == [image.manifest.content] * 2
    settle()
    with ThreadPoolExecutor(8) as crowd:
        assert list(crowd.map(pull, range(24))) == [[image.manifest.content] * 2] * 24
    time.sleep(1.1)
    assert pull(0) == [image.manifest.content] * 2
    assert asked(service) == 1
    assert asked(service, method="HEAD") >= 2


def test_concurrent_clients_of_one_manifest_cost_at_most_one_get_per_worker(service: Cached) -> None:
    image = pushed(service, "cold")
    with ThreadPoolExecutor(16) as crowd:
        answers = list(crowd.map(lambda _: service.proxy.get(path_of("cold"), **ACCEPT).body, range(16)))
    assert answers == [image.manifest.content] * 16
    assert asked(service) in (1, 2)


def test_both_workers_show_the_remaining_allowance(service: Cached) -> None:
    for page in by_each_worker(service, "/readyz"):
        assert page.json()["upstreams"][0]["allowance"] is None
    pushed(service, "first")
    for name in ("first", "second"):
        assert service.proxy.get(path_of(name), **ACCEPT).status == 200
    for page in by_each_worker(service, "/readyz"):
        shown = page.json()["upstreams"][0]["allowance"]
        assert {**shown, "seen_at": ""} == {"limit": 6, "remaining": 4, "window_seconds": 21600, "seen_at": ""}
        ago = datetime.now(UTC) - datetime.fromisoformat(shown["seen_at"])
        assert timedelta() <= ago < timedelta(seconds=30)
    for page in by_each_worker(service, "/metrics"):
        found = gauges(page.body, service.upstream.url)
        assert time.time() - found.pop("seen_timestamp_seconds") < 30
        assert found == {"limit": 6, "remaining": 4, "window_seconds": 21600}
        assert b"e2e/first" not in page.body


def test_with_the_allowance_used_up_cached_manifests_are_served_and_the_upstream_is_not_asked(service: Cached) -> None:
    image = pushed(service, "kept")
    for path in (path_of("kept"), path_of("kept", image.manifest.digest)):
        assert service.proxy.get(path, **ACCEPT).body == image.manifest.content
    for number in range(LIMIT - 1):
        assert service.proxy.get(path_of(f"other{number}"), **ACCEPT).status == 200
    settle()
    refused = [answer for _ in range(5) for answer in by_each_worker(service, path_of("uncached"), **ACCEPT)]
    assert {answer.status for answer in refused} == {429}
    assert {answer.error_codes()[0] for answer in refused} == {"TOOMANYREQUESTS"}
    assert all(240 <= int(answer.headers["Retry-After"]) <= 300 for answer in refused[2:])
    time.sleep(1.1)
    mark = service.upstream.mark()
    for _ in range(3):
        for answer in by_each_worker(service, path_of("kept"), **ACCEPT):
            assert (answer.status, answer.body) == (200, image.manifest.content)
            assert answer.headers["Warning"].startswith("299 ")
        for answer in by_each_worker(service, path_of("kept", image.manifest.digest), **ACCEPT):
            assert (answer.status, answer.body) == (200, image.manifest.content)
    assert asked(service, mark) == asked(service, mark, "HEAD") == 0
    began, mark = time.monotonic(), service.upstream.mark()
    for _ in range(10):
        assert {answer.status for answer in by_each_worker(service, path_of("uncached"), **ACCEPT)} == {429}
    seconds = time.monotonic() - began
    assert asked(service, mark) <= 2 * (1 + seconds), "each of two workers may try once a second"
    for page in by_each_worker(service, "/readyz"):
        assert page.json()["upstreams"][0]["allowance"]["remaining"] == 0
    assert service.counted("throttled_total") == 4, "each worker was throttled once, and each reports the sum"
    assert len([line for line in service.complaints() if "sending fewer requests" in line]) == 2
