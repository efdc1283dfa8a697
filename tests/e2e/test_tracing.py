"""Traces, from the client through the mirror to the upstream and to a collector."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import NAME, Cached, FaultyUpstream, cached, faulty_upstream, pull
from tests.e2e.support.collector import Collector, collector
from tests.e2e.support.images import make_image
from tests.e2e.support.plain_http import connect, send
from tests.e2e.support.service import Serving

pytestmark = pytest.mark.real()

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "team=1"}
MANIFEST = f"/v2/{NAME}/manifests/1"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(tmp_path, tmp_path / "files") as running:
        running.push(make_image("tracing", [1000]), "1")
        yield running


@pytest.fixture
def collecting() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture
def mirror(serve: Serving, upstream: FaultyUpstream, collecting: Collector, tmp_path: Path) -> Iterator[Cached]:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collecting.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20secret",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_SERVICE_NAME": "our-mirror",
        "WORKERS": "1",
    }
    with cached(serve, upstream, tmp_path / "cache", **settings) as found:
        yield found


def test_a_miss_is_one_trace_from_the_client_to_the_upstream(mirror: Cached, collecting: Collector) -> None:
    mark = mirror.upstream.mark()
    assert pull(mirror.proxy.port, MANIFEST, GIVEN).status == 200
    (server,) = collecting.named("GET manifest")
    (exchange,) = collecting.named("GET upstream manifest")
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    assert (exchange.trace_id, exchange.parent_id) == (TRACE, server.span_id)
    assert exchange.attributes["http.response.status_code"] == 200
    assert exchange.attributes["url.full"].startswith(f"{mirror.upstream.url}/v2/{NAME}/manifests/")
    assert server.resource["service.name"] == "our-mirror"
    assert server.resource["deployment.environment.name"] == "test"
    assert collecting.headers["authorization"] == "Bearer secret"
    (sent,) = [entry for entry in mirror.upstream.log(mark) if "/manifests/" in entry["path"]]
    assert (sent["traceparent"], sent["tracestate"]) == (f"00-{TRACE}-{exchange.span_id}-01", "team=1")
    (line,) = [entry for entry in mirror.proxy.accesses() if entry["path"] == MANIFEST]
    assert (line["trace_id"], line["span_id"]) == (TRACE, server.span_id)


def test_a_warm_hit_makes_no_span(mirror: Cached, collecting: Collector) -> None:
    with closing(connect(mirror.proxy.url)) as connection:
        for number in range(1, 20):
            headers = {"traceparent": f"00-{number:032x}-{PARENT}-01"}
            assert send(connection, "GET", MANIFEST, headers).status == 200
        send(connection, "GET", "/nowhere")
    collecting.named("GET other")  # spans arrive in the order of their ends, so all others have arrived
    # The first request is a miss, and the mirror keeps the response to the second.
    assert [int(span.trace_id, 16) for span in collecting.named("GET manifest", 2)] == [1, 2]


def test_requests_that_join_a_download_are_linked_with_it(mirror: Cached, collecting: Collector) -> None:
    blob = mirror.upstream.blob(2**20)
    mirror.upstream.control({"path": blob.digest, "hold_after": 2**19})
    with mirror.proxy.open(blob.path) as first, mirror.proxy.open(blob.path) as second:
        assert mirror.upstream.holds()
        mirror.upstream.control()
        assert first.read() == second.read() == blob.content
    (download,) = collecting.named("download")
    requests = {one.attributes["mirror.result"]: one for one in collecting.named("GET blob", 2)}
    assert (download.trace_id, download.parent_id) == (requests["miss"].trace_id, requests["miss"].span_id)
    assert download.links == (requests["joined"].span_id,)
    assert requests["joined"].links == (download.span_id,)
    assert download.attributes["mirror.bytes"] == 2**20
    # The first request of the download; the request that joined has asked whether its caller may read.
    assert download.span_id in {one.parent_id for one in collecting.spans if one.name == "GET upstream blob"}


def test_without_a_collector_the_trace_of_the_client_is_passed_on(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    with cached(serve, upstream, tmp_path / "cache") as mirror:
        mark = upstream.mark()
        assert pull(mirror.proxy.port, MANIFEST, GIVEN).status == 200
        (sent,) = [entry for entry in upstream.log(mark) if "/manifests/" in entry["path"]]
        assert {name: sent[name] for name in GIVEN} == GIVEN
        lines = [entry for entry in mirror.proxy.accesses() if entry["path"] == MANIFEST]
        assert lines
        assert not any("trace_id" in line for line in lines)


@pytest.mark.parametrize("is_silent", [False, True], ids=["dead", "silent"])
def test_a_collector_that_does_not_answer_delays_neither_pulls_nor_the_stop(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path, *, is_silent: bool
) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if is_silent:
            listener.listen()  # accepts connections and never answers
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with cached(serve, upstream, tmp_path / "cache", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as mirror:
            began = time.monotonic()
            for _ in range(20):
                assert mirror.gives(upstream.blob(1000))
            time.sleep(3)  # the exporter is waiting for the collector now
            assert mirror.gives(upstream.blob(1000))
            assert time.monotonic() - began < 15
            began = time.monotonic()
            mirror.proxy.process.terminate()
            assert mirror.proxy.process.wait(30) == 0
            # The exporter alone would wait ten seconds.
            assert time.monotonic() - began < 8
