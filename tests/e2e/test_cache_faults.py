"""The cache with a faulty upstream: a client gets correct bytes, or can see that the body is incomplete."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, Made, cached, faulty_upstream, pull, pull_over
from tests.e2e.support.processes import free_port, wait_until
from tests.e2e.support.service import Serving

pytestmark = pytest.mark.real()

SIZE = 4 * MIB
EITHER = ["GET", "HEAD"]


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "faults-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    with cached(serve, upstream, workplace / "faults-cache", FILL_RETRIES="2") as found:
        yield found
    assert found.cache.wrong() == []


@pytest.fixture(autouse=True)
def _faultless(upstream: FaultyUpstream) -> Iterator[None]:
    yield
    upstream.control()


def nothing_is_kept_of(service: Cached, blob: Made) -> bool:
    """Whether nothing of the blob is cached, and it can be pulled after the upstream works again."""
    kept = service.cache.file(blob.digest).exists()
    service.upstream.control()
    return not kept and service.gives(blob)


WRONG = {
    "at the start": {"flip_at": 0},
    "in the middle": {"flip_at": 2 * MIB},
    "at the end": {"flip_at": -1},
    "without a length": {"flip_at": 2 * MIB, "chunked": True},
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_bytes_are_never_served_as_a_complete_body_and_never_cached(service: Cached, fault: str) -> None:
    blob = service.upstream.blob(SIZE)
    before = service.counted("wrong_content_total")
    service.upstream.control({"path": blob.digest, **WRONG[fault]})
    with ThreadPoolExecutor() as pool:
        pulled = list(pool.map(lambda _: service.pull(blob), range(3)))
    # Before the first byte is sent the mirror can answer with an error; afterwards it ends the body early.
    assert all(one.status in (200, 502) for one in pulled)
    assert not any(one.whole for one in pulled if one.status == 200)
    assert all(len(one.body) < SIZE for one in pulled)
    assert service.counted("wrong_content_total") > before
    encoded = blob.digest.partition(":")[2]
    assert any(encoded in line for line in service.complaints())
    assert nothing_is_kept_of(service, blob)


def test_a_wrong_blob_of_a_few_bytes_is_refused_too(service: Cached) -> None:
    blob = service.upstream.blob(10)
    service.upstream.control({"path": blob.digest, "flip_at": 5})
    pulled = service.pull(blob)
    assert pulled.status == 502 or not pulled.whole
    assert len(pulled.body) != blob.size
    assert nothing_is_kept_of(service, blob)


def test_a_correct_body_without_a_length_is_cached(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    service.upstream.control({"path": blob.digest, "chunked": True, "methods": EITHER})
    assert service.gives(blob)
    assert service.cache.holds(blob)
    assert service.gives(blob)


ONCE = {
    "a body that breaks off": {"cut_after": 2 * MIB},
    "a body shorter than its length": {"short_by": 1000},
    "a body shorter than its chunks say": {"cut_after": 2 * MIB, "chunked": True},
    "a body that never begins": {"cut_after": 0},
}


@pytest.mark.parametrize("fault", ONCE)
def test_a_client_does_not_notice_when_the_upstream_fails_once(service: Cached, fault: str) -> None:
    blob = service.upstream.blob(SIZE)
    before = service.counted("fill_resumes_total")
    service.upstream.control({"path": blob.digest, "times": 1, **ONCE[fault]})
    assert service.gives(blob)
    assert service.cache.holds(blob)
    assert service.counted("fill_resumes_total") > before


def test_an_interrupted_fill_is_resumed_at_the_byte_where_it_stopped(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    service.upstream.control({"path": blob.digest, "times": 2, "cut_after": MIB})
    assert service.gives(blob)
    gets = service.upstream.gets(blob.path)
    starts = [int(entry["range"].removeprefix("bytes=").partition("-")[0]) if entry["range"] else 0 for entry in gets]
    assert starts == sorted(set(starts)), gets
    assert len(starts) == 3
    assert sum(entry["sent"] for entry in gets) < SIZE + MIB


def test_an_interrupted_fill_restarts_if_the_upstream_ignores_ranges(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    cut = {"path": blob.digest, "times": 1, "cut_after": 2 * MIB}
    service.upstream.control(cut, {"path": blob.digest, "ignore_range": True})
    assert service.gives(blob)
    assert service.cache.holds(blob)


@pytest.mark.parametrize("refusal", [{"status": 500}, {"status": 429, "retry_after": "1"}])
def test_an_interrupted_fill_is_resumed_after_one_refusal(service: Cached, refusal: dict[str, object]) -> None:
    blob = service.upstream.blob(SIZE)
    cut = {"path": blob.digest, "times": 1, "cut_after": 2 * MIB}
    service.upstream.control(cut, {"path": blob.digest, "times": 1, **refusal})
    assert service.gives(blob)


def test_a_body_that_is_always_too_short_ends_early_for_the_client(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    service.upstream.control({"path": blob.digest, "short_by": 1000})
    pulled = service.pull(blob)
    assert not pulled.whole
    assert blob.content.startswith(pulled.body)
    assert len(service.upstream.gets(blob.path)) <= 4, (
        "one fill with two retries, and at most one request for the client"
    )
    assert nothing_is_kept_of(service, blob)


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without ranges"])
@pytest.mark.parametrize("attempt", range(3))
def test_a_wrong_start_and_a_correct_rest_are_never_served_as_one_body(
    service: Cached, attempt: int, *, ranges: bool
) -> None:
    blob = service.upstream.blob(SIZE)
    wrong = {"path": blob.digest, "times": 1, "wrong_prefix": MIB, "hold_after": 3 * MIB, "cut_after": 3 * MIB + 1}
    service.upstream.control(wrong)
    # One reader per worker: one worker fills the partial file, the other only reads it.
    with service.proxy.connection_to_each_worker() as connections, ThreadPoolExecutor() as pool:
        early = [pool.submit(pull_over, connection, blob.path) for connection in connections]
        assert service.upstream.holds()
        time.sleep(0.1 * attempt)
        service.upstream.control({"path": blob.digest, "ignore_range": not ranges})
        pulled = [one.result() for one in early]
    # A client that had no byte yet may get an error.
    assert {one.status for one in pulled} <= {200, 502}
    assert {one.body == blob.content for one in pulled if one.whole and one.status == 200} <= {True}
    assert nothing_is_kept_of(service, blob) or service.gives(blob)
    assert service.cache.holds(blob)


@pytest.mark.parametrize(("status", "given", "code"), [(429, 429, "TOOMANYREQUESTS"), (500, 502, "UNAVAILABLE")])
def test_the_error_of_the_upstream_is_passed_on_and_cached_content_is_still_served(
    service: Cached, status: int, given: int, code: str
) -> None:
    warm, cold = service.warm(), service.upstream.blob()
    service.upstream.control({"status": status, "retry_after": "7", "methods": EITHER})
    answer = service.proxy.get(cold.path)
    assert (answer.status, answer.error_codes()) == (given, [code])
    if status == 429:
        assert answer.headers["Retry-After"] == "7"
    assert service.gives(warm)
    assert nothing_is_kept_of(service, cold)


def test_a_slow_body_is_streamed_as_it_arrives(service: Cached) -> None:
    blob = service.upstream.blob(2 * MIB)
    service.upstream.control({"path": blob.digest, "rate": MIB})
    with service.proxy.open(blob.path) as response:
        first, began = response.read(1), time.monotonic()
        body = first + response.read()
    assert time.monotonic() - began > 1, "the body arrived over more than one second"
    assert body == blob.content


def test_the_mirror_waits_for_late_headers(service: Cached) -> None:
    blob = service.upstream.blob()
    service.upstream.control({"path": blob.digest, "delay": 1, "methods": EITHER})
    assert service.gives(blob)


def test_an_upstream_that_refuses_head_is_asked_by_get(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    with cached(serve, upstream, tmp_path / "cache", GRANT_TTL="1", WORKERS="1") as service:
        blob = service.warm()
        for status in (401, 403, 405):
            upstream.control({"status": status, "methods": ["HEAD"], "path": "/blobs/"})
            time.sleep(1.1)
            since = upstream.mark()
            assert service.gives(blob), status
            gets = upstream.gets(blob.path, since)
            assert [(entry["status"], entry["range"]) for entry in gets] == [(206, "bytes=0-0")], (status, gets)
            assert service.gives(upstream.blob()), status


def test_requests_to_a_silent_upstream_time_out(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> None:
    with cached(serve, upstream, tmp_path / "cache", UPSTREAM_TIMEOUT="2", FILL_RETRIES="1") as service:
        warm, cold, half = service.warm(), upstream.blob(), upstream.blob(SIZE)
        upstream.control(
            {"path": cold.digest, "silent": True, "methods": EITHER},
            {"path": half.digest, "hold_after": 2 * MIB, "times": 1},
        )
        with ThreadPoolExecutor() as pool:
            began = time.monotonic()
            unheard, broken = pool.submit(service.proxy.get, cold.path), pool.submit(service.gives, half)
            assert service.gives(warm)
            assert time.monotonic() - began < 2
            answer = unheard.result()
            assert broken.result(), "the fill is resumed where the body stalled"
        assert answer.status in (502, 504)
        assert answer.error_codes()
        assert time.monotonic() - began < 20


def test_a_pull_survives_a_restart_of_the_upstream_and_cached_blobs_are_served_without_it(
    serve: Serving, tmp_path: Path
) -> None:
    port, files = free_port(), tmp_path / "files"
    with faulty_upstream(tmp_path, files, port) as mortal, cached(serve, mortal, tmp_path / "cache") as service:
        blob, cold = mortal.blob(2 * SIZE), mortal.blob()
        mortal.control({"path": blob.digest, "hold_after": SIZE})
        with ThreadPoolExecutor() as pool:
            pulling = [pool.submit(pull, service.proxy.port, blob.path) for _ in range(4)]
            assert mortal.holds()
            assert wait_until(lambda: service.cache.partial_bytes() >= MIB, 10)
            mortal.process.kill()
            time.sleep(0.5)
            with faulty_upstream(tmp_path, files, port) as returned:
                pulled = [one.result() for one in pulling]
                gets = returned.gets(blob.path)
        assert [(one.status, one.whole, one.body == blob.content) for one in pulled] == [(200, True, True)] * 4
        assert len(gets) == 1
        assert re.fullmatch(r"bytes=[1-9]\d*-\d*", gets[0]["range"] or ""), (
            "the fill is resumed at the byte where it stopped"
        )
        # From here on the upstream is gone.
        assert service.gives(blob)
        answer = service.proxy.get(cold.path)
        assert answer.status in (502, 503)
        assert answer.error_codes()
        assert service.proxy.get("/livez").status == 200
