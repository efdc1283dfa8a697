"""The watcher of the benchmarks counts what it receives, connects again, and reports what it does not get."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from benchmarks.watching import METRICS, STREAMS, Watch
from tests.e2e.support.processes import wait_until
from tests.entrypoints.plain_server import answering

NOW, PULLS = STREAMS
STREAM = b": hello\n\ndata: one\ndata: line\n\n:\n\ndata: two\n\ndata: a part of an ev"
BODIES = {NOW: STREAM, PULLS: b"data: one\n\n", METRICS: b"metric 1\n"}


@contextmanager
def mirror(bodies: dict[str, bytes], asked: dict[str, list[float]] | None = None) -> Iterator[str]:
    """The address of a server that sends these bodies, by path, and ends each stream after its body. `asked`: gets the
    times of the requests.
    """

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.setdefault(self.path, []).append(time.monotonic())
            self.send_response(200 if self.path in bodies else 503)
            self.end_headers()
            self.wfile.write(bodies.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server, answering(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


def test_events_and_scrapes_are_counted_over_all_mirrors() -> None:
    watch = Watch()
    for _ in range(2):
        with mirror(BODIES) as url, watch.of(url, None):
            pass
    assert watch.problems == []
    assert watch.mirrors == 2
    # On a busy machine, a watcher may ask a second time before it ends.
    assert (watch.received[NOW] % 2, watch.received[NOW] >= 4, watch.received[PULLS] >= 2) == (0, True, True)
    watch.received = Counter({NOW: 4, PULLS: 2, METRICS: 2})
    assert "Mirrors: 2; received events: 6; scrapes: 2." in watch.text()


def test_metrics_are_scraped_each_second_and_streams_that_end_are_opened_again() -> None:
    watch, asked = Watch(), dict[str, list[float]]()
    with mirror(BODIES, asked) as url, watch.of(url, None):
        assert wait_until(lambda: all(len(asked[path]) >= 3 for path in BODIES), 30)
    assert watch.received.keys() == BODIES.keys()
    for times in asked.values():
        assert all(later - earlier > 0.8 for earlier, later in pairwise(times))


def test_a_mirror_whose_page_is_not_open_is_only_scraped() -> None:
    watch, asked = Watch(), dict[str, list[float]]()
    with mirror(BODIES, asked) as url, watch.of(url, None, is_page_open=False):
        pass
    assert watch.problems == []
    assert asked.keys() == watch.received.keys() == {METRICS}


def test_a_mirror_that_stops_to_answer_is_a_problem() -> None:
    watch, bodies, asked = Watch(), dict(BODIES), dict[str, list[float]]()
    with mirror(bodies, asked) as url, watch.of(url, None):
        del bodies[METRICS]
        assert wait_until(lambda: len(asked[METRICS]) >= 3, 30)
    assert watch.problems == [f"HTTPException('{METRICS}: status 503')"]


def test_a_failure_of_the_benchmark_is_raised() -> None:
    watch = Watch()
    with pytest.raises(ZeroDivisionError), mirror(BODIES) as url, watch.of(url, None):
        _ = 1 / 0
    assert watch.mirrors == 1


@pytest.mark.parametrize("missing", [NOW, PULLS, METRICS])
def test_a_mirror_that_cannot_be_watched_is_not_measured(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.watching.START_SECONDS", 0.3)
    bodies = {path: body for path, body in BODIES.items() if path != missing}
    with mirror(bodies) as url, pytest.raises(RuntimeError, match="cannot be watched"), Watch().of(url, None):
        pytest.fail("the benchmark runs")
