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


class Settings:
    """The settings file of a mirror."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.are()

    def are(self, **otel: str) -> None:
        lines = [f'otel_{name} = "{value}"\n' for name, value in otel.items()]
        self.path.write_text("".join(["workers = 2\n", *lines]))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "mirror.toml")


def test_a_reload_turns_traces_on_and_off_and_moves_them_to_another_collector(
    serve: Serving, upstream: FaultyUpstream, collecting: Collector, settings: Settings, tmp_path: Path
) -> None:
    held = upstream.blob(2**20)
    with collector() as other, cached(serve, upstream, tmp_path / "cache", CONFIG=str(settings.path)) as mirror:

        def pull_as(trace: str) -> None:
            with mirror.proxy.connection_to_each_worker() as workers:
                for worker in workers:
                    sent = {"traceparent": f"00-{trace * 32}-{PARENT}-01", "Cache-Control": trace}
                    assert send(worker, "GET", MANIFEST, sent).status == 200

        def reload(**otel: str) -> None:
            settings.are(**otel)
            [said] = mirror.proxy.reload()
            assert "settings reloaded" in said
            assert "OTEL_EXPORTER_OTLP_ENDPOINT" in said

        pull_as("1")
        reload(exporter_otlp_endpoint=collecting.url, service_name="first")
        pull_as("2")
        upstream.control({"path": held.digest, "hold_after": 2**19})
        with mirror.proxy.open(held.path) as running:
            assert upstream.holds()
            reload(exporter_otlp_endpoint=other.url, service_name="second")
            pull_as("3")
            upstream.control()
            assert running.read() == held.content
        # What began before the reload is in the traces of before.
        (download,) = collecting.named("download")
        assert download.resource["service.name"] == "first"
        found = {
            name: {(one.trace_id[0], one.resource["service.name"]) for one in place.named("GET manifest", 2)}
            for name, place in (("first", collecting), ("second", other))
        }
        assert found == {"first": {("2", "first")}, "second": {("3", "second")}}
        reload()
        mark = upstream.mark()
        mirror.gives(upstream.blob(1000))
        pull_as("4")
        reload(exporter_otlp_endpoint=collecting.url, service_name="third")
        pull_as("5")
        assert [one.trace_id[0] for one in collecting.named("GET manifest", 4)] == ["2", "2", "5", "5"]
        assert len(other.named("GET manifest", 2)) == 2
        assert [entry["traceparent"] for entry in upstream.log(mark) if "/blobs/" in entry["path"]] == [None]


def test_a_reload_refuses_invalid_settings_of_traces(
    serve: Serving, upstream: FaultyUpstream, collecting: Collector, settings: Settings, tmp_path: Path
) -> None:
    settings.are(exporter_otlp_endpoint=collecting.url)
    with cached(serve, upstream, tmp_path / "cache", CONFIG=str(settings.path)) as mirror:
        for wrong in ({"traces_sampler": "sometimes"}, {"traces_sampler_arg": "2"}, {"resource_attributes": "region"}):
            settings.are(exporter_otlp_endpoint="http://127.0.0.1:9", **wrong)
            [said] = mirror.proxy.reload()
            assert "settings not reloaded, the old ones stay in force: " in said
            assert f"otel_{next(iter(wrong))}" in said.lower()
        assert pull(mirror.proxy.port, MANIFEST, GIVEN).status == 200
        (server,) = collecting.named("GET manifest")
        assert server.trace_id == TRACE
