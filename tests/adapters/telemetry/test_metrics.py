"""What is counted and observed, by however many workers."""

import os
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, get_args

import pytest
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from adapters.telemetry.prometheus_text import histogram_text
from adapters.telemetry.shared_numbers import SharedHistogram
from application.ports.index import Stored
from application.ports.telemetry import Traffic, WorkerState
from domain.allowance import Allowance
from domain.events import (
    RESULTS,
    ROUTES,
    UPSTREAM_KINDS,
    UPSTREAM_RESULTS,
    AccountsReloaded,
    AccountsUnreadable,
    BackOffStarted,
    BodiesReceived,
    BytesDelivered,
    BytesFetched,
    CacheFull,
    CacheMeasured,
    CacheWriteFailed,
    ContentDamaged,
    ContentEvicted,
    ContentRequested,
    DigestMismatch,
    DownloadJoined,
    DownloadResumed,
    DownloadStarted,
    EndpointFailed,
    EndpointRecovered,
    Event,
    LoginDelayed,
    LoginRejected,
    OperatorActed,
    PinCheckFailed,
    PinMoved,
    PinsMeasured,
    PinsTooLarge,
    PullDenied,
    QueueLeft,
    RequestAnswered,
    ServiceNameConflict,
    SharedBytesReceived,
    SharedBytesStored,
    SharedContentEvicted,
    SharedDownloadStarted,
    SharedIndexLost,
    SharedIndexRecovered,
    SharedStoreAsked,
    SharedStoreLost,
    SharedStoreRecovered,
    SharedTierOpened,
    StaleServed,
    UpkeepFailed,
    UpstreamAnswered,
    UpstreamAuthLearned,
    UpstreamFailed,
)
from domain.records import ContentKind
from tests.contracts.storage import HUB, QUAY

URL = "https://upstream.test"
TABLE: list[tuple[Event, str, float]] = [
    (ContentRequested(ContentKind.BLOB, is_hit=True), 'cache_hits_total{kind="blob"}', 1),
    (ContentRequested(ContentKind.MANIFEST, is_hit=True), 'cache_hits_total{kind="manifest"}', 1),
    (ContentRequested(ContentKind.BLOB, is_hit=False), 'cache_misses_total{kind="blob"}', 1),
    (ContentRequested(ContentKind.MANIFEST, is_hit=False), 'cache_misses_total{kind="manifest"}', 1),
    (DownloadStarted(), "fills_total", 1),
    (DownloadJoined(), "fill_joins_total", 1),
    (DownloadResumed(URL, "sha256:a", "refused"), "fill_resumes_total", 1),
    (BytesFetched(2**40), "upstream_bytes_total", 2**40),
    (BytesDelivered(7), "client_bytes_total", 7),
    (StaleServed(URL, "refused"), "stale_answers_total", 1),
    (BackOffStarted(URL, 30, "slow down"), "throttled_total", 1),
    (ContentEvicted(3, 4096), "evictions_total", 3),
    (SharedContentEvicted(3, 4096), "shared_evictions_total", 3),
    (DigestMismatch(URL, "a/b", "sha256:a"), "wrong_content_total", 1),
    (ContentDamaged("sha256:a"), "damaged_content_total", 1),
    (CacheFull("sha256:a"), "storage_full_total", 1),
    (CacheWriteFailed("sha256:a", "too many open files"), "storage_failures_total", 1),
    (UpstreamFailed(URL, "refused"), "upstream_failures_total", 1),
    (PullDenied("alice", URL, "a/b"), "pulls_denied_total", 1),
    (LoginDelayed("alice", "192.0.2.7", 4), "logins_slowed_total", 1),
    (LoginRejected("alice", "192.0.2.7", 16), "logins_turned_away_total", 1),
    (EndpointFailed(URL, URL, "refused"), "endpoint_failures_total", 1),
    (EndpointRecovered(URL, URL), "endpoint_recoveries_total", 1),
    (SharedBytesReceived(7), "shared_bytes_received_total", 7),
    (SharedBytesStored(7), "shared_bytes_stored_total", 7),
    *(
        (SharedDownloadStarted(role), f'shared_downloads_total{{role="{role}"}}', 1)
        for role in ("found", "followed", "led", "took_over", "alone")
    ),
    *(
        (
            SharedStoreAsked(operation, result),
            f'shared_store_requests_total{{operation="{operation}",result="{result}"}}',
            1,
        )
        for operation in ("get", "put", "list", "delete")
        for result in ("ok", "missing", "failed")
    ),
    (SharedStoreLost("s3://images", "silent"), "shared_store_failures_total", 1),
    (SharedStoreRecovered("s3://images"), "shared_store_recoveries_total", 1),
    (SharedIndexLost("index.test:6379", "silent"), "shared_index_failures_total", 1),
    (SharedIndexRecovered("index.test:6379"), "shared_index_recoveries_total", 1),
]
UNCOUNTED = {
    OperatorActed,
    PinCheckFailed,
    PinMoved,
    PinsMeasured,
    PinsTooLarge,
    UpstreamAuthLearned,
    ServiceNameConflict,
    UpkeepFailed,
    AccountsReloaded,
    AccountsUnreadable,
    SharedTierOpened,
    RequestAnswered,
    UpstreamAnswered,
    QueueLeft,
    BodiesReceived,
    CacheMeasured,
}

# Of an upstream that the memory has no place for
OBSERVED = (
    RequestAnswered("blob", "hit", URL, 0.5, 7, 0.25),
    UpstreamAnswered(URL, "storage", "ok", 0.5),
    QueueLeft(URL, 0.5),
    BodiesReceived(URL, 2**21, 0.5),
)


def numbers(sink: CountingEventSink) -> dict[str, float]:
    assert sink.media_type.startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(b"".join(sink.parts()).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            name = sample.name.removeprefix("docker_image_proxy_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def counters(sink: CountingEventSink) -> dict[str, float]:
    return {name: value for name, value in numbers(sink).items() if "_total" in name}


def test_every_kind_of_event_is_counted_or_listed_as_uncounted() -> None:
    assert {type(event) for event, _, _ in TABLE} | UNCOUNTED == set(get_args(Event))


def test_counters_start_at_zero() -> None:
    counted = counters(CountingEventSink(SharedCounters(3), 1))
    assert set(counted) == {name for _, name, _ in TABLE}
    assert set(counted.values()) == {0.0}


@pytest.mark.parametrize(("event", "name", "count"), TABLE, ids=lambda value: value if isinstance(value, str) else "")
def test_an_event_changes_one_counter(event: Event, name: str, count: float) -> None:
    sink = CountingEventSink(SharedCounters(1), 0)
    for _ in range(2):
        sink.emit(event)
    assert {key: value for key, value in counters(sink).items() if value} == {name: 2 * count}


def test_uncounted_events_are_accepted() -> None:
    sink = CountingEventSink(SharedCounters(1), 0)
    sink.emit(UpstreamAuthLearned(URL, 2, "open", is_change=True))
    sink.emit(ServiceNameConflict(URL, "mirror"))
    assert not any(counters(sink).values())


def test_every_worker_reports_the_sum_of_all_workers() -> None:
    shared = SharedCounters(3)
    sinks = [CountingEventSink(shared, row) for row in range(3)]
    for number, sink in enumerate(sinks, start=1):
        for event, _, _ in TABLE:
            for _ in range(number):
                sink.emit(event)
    first, *others = (counters(sink) for sink in sinks)
    assert all(other == first for other in others)
    assert first == {name: 6 * count for _, name, count in TABLE}


def test_a_replacement_worker_continues_the_counters() -> None:
    counters = SharedCounters(2)
    for _ in range(2):
        CountingEventSink(counters, 1).emit(DownloadStarted())
    assert numbers(CountingEventSink(counters, 0))["fills_total"] == 2


def test_forked_workers_share_the_counters() -> None:
    counters = SharedCounters(2)
    child = os.fork()
    if child == 0:
        CountingEventSink(counters, 1).emit(BytesDelivered(5))
        os._exit(0)
    os.waitpid(child, 0)
    sink = CountingEventSink(counters, 0)
    sink.emit(BytesDelivered(2))
    assert numbers(sink)["client_bytes_total"] == 7


def test_the_traffic_is_that_of_all_workers_without_requests_for_the_page_and_for_operators() -> None:
    shared = SharedCounters(2, ["https://a.test"])
    sinks = [CountingEventSink(shared, worker) for worker in range(2)]
    for number, sink in enumerate(sinks, 1):
        for route in ROUTES:
            for upstream in ("", "https://a.test", "https://added-later.test"):
                sink.emit(RequestAnswered(route, "ok", upstream, 0.1, 5, None))
        sink.emit(BytesDelivered(number))
        sink.emit(BytesFetched(10 * number))
    routes = len(ROUTES) - 2
    assert sinks[0].traffic() == sinks[1].traffic() == Traffic(2 * 3 * routes, 3, 30)


def test_a_shared_service_is_available_while_it_answers_all_workers() -> None:
    shared = SharedCounters(2)
    sinks = [CountingEventSink(shared, row) for row in range(2)]
    services = ("shared_store_available", "shared_index_available")
    assert not set(services) & set(numbers(sinks[0])), "there are no replicas"
    steps: list[tuple[int, Event, tuple[float, float]]] = [
        (0, SharedTierOpened(), (1, 1)),
        (1, SharedTierOpened(), (1, 1)),
        (0, SharedStoreLost("s3://images", "silent"), (0, 1)),
        (1, SharedStoreLost("s3://images", "silent"), (0, 1)),
        (0, SharedIndexLost("index.test:6379", "silent"), (0, 0)),
        (1, SharedStoreRecovered("s3://images"), (0, 0)),
        (0, SharedStoreRecovered("s3://images"), (1, 0)),
        (0, SharedTierOpened(), (1, 1)),  # by the worker that replaces the first one
    ]
    for worker, event, expected in steps:
        sinks[worker].emit(event)
        assert tuple(numbers(sinks[1])[name] for name in services) == expected, event
    for sink in sinks:  # a reload removes the settings
        sink.forget_services()
    assert not set(services) & set(numbers(sinks[0]))


def test_names_are_never_on_the_page() -> None:
    sink: Any = CountingEventSink(SharedCounters(1), 0)
    for event in (*(event for event, _, _ in TABLE), *OBSERVED):
        sink.emit(event)
    page = b"".join(sink.parts()).decode()
    for name in ("alice", "upstream.test", "a/b", "sha256", "refused"):
        assert name not in page


def test_every_worker_reports_the_newest_allowance_of_each_upstream() -> None:
    counters = SharedCounters(2, [HUB.url, QUAY.url])
    sinks = [CountingEventSink(counters, row) for row in range(2)]
    sinks[0].allowance_table.publish(HUB, Allowance(100, 76, 21600, 1_800_000_000.5))
    sinks[1].allowance_table.publish(HUB, Allowance(100, 75, 21600, 1_800_000_001.5))
    for sink in sinks:
        gauges = {name: value for name, value in numbers(sink).items() if name.startswith("allowance_")}
        assert gauges == {
            f'allowance_limit{{upstream="{HUB.url}"}}': 100,
            f'allowance_remaining{{upstream="{HUB.url}"}}': 75,
            f'allowance_window_seconds{{upstream="{HUB.url}"}}': 21600,
            f'allowance_seen_timestamp_seconds{{upstream="{HUB.url}"}}': 1_800_000_001.5,
        }


# --- histograms ---


def test_a_request_is_observed_by_route_result_and_upstream() -> None:
    sink = CountingEventSink(SharedCounters(1, [HUB.url]), 0)
    sink.emit(RequestAnswered("blob", "miss", HUB.url, 0.02, 3000, 0.004))
    sink.emit(RequestAnswered("blob", "miss", HUB.url, 700.0, 2**40, 0.3))
    labels = f'result="miss",route="blob",upstream="{HUB.url}"'
    found = numbers(sink)
    assert found[f"request_seconds_count{{{labels}}}"] == found[f"first_byte_seconds_count{{{labels}}}"] == 2
    assert found[f"request_seconds_sum{{{labels}}}"] == pytest.approx(700.02)
    assert found[f"response_bytes_sum{{{labels}}}"] == 2**40 + 3000
    bounds = ("0.01", "0.025", "300.0", "+Inf")
    assert [found[f'request_seconds_bucket{{le="{bound}",{labels}}}'] for bound in bounds] == [0, 1, 1, 2]


def test_a_value_on_a_bound_belongs_to_the_bucket_of_this_bound() -> None:
    sink = CountingEventSink(SharedCounters(1, [HUB.url]), 0)
    sink.emit(QueueLeft(HUB.url, 0.5))
    name = f'upstream_queue_seconds_bucket{{le="BOUND",upstream="{HUB.url}"}}'
    assert [numbers(sink)[name.replace("BOUND", bound)] for bound in ("0.25", "0.5", "1.0")] == [0, 1, 1]


def test_upstreams_that_a_reload_has_added_are_observed_together() -> None:
    sink = CountingEventSink(SharedCounters(1, [HUB.url]), 0)
    for event in OBSERVED:
        sink.emit(event)
    found = numbers(sink)
    assert found['upstream_request_seconds_count{kind="storage",result="ok",upstream="other"}'] == 1
    assert found['upstream_queue_seconds_count{upstream="other"}'] == 1
    assert found['download_bytes_per_second_sum{upstream="other"}'] == 2**22
    assert found['request_seconds_count{result="hit",route="blob",upstream="other"}'] == 1


def test_the_speed_of_short_transfers_is_not_observed() -> None:
    sink = CountingEventSink(SharedCounters(1, [HUB.url]), 0)
    sink.emit(BodiesReceived(HUB.url, 2**20 - 1, 1.0))
    assert not [name for name in numbers(sink) if name.startswith("download_bytes")]


def test_histograms_are_sums_over_forked_workers() -> None:
    shared = SharedCounters(3, [HUB.url])
    event = RequestAnswered("manifest", "hit", HUB.url, 0.02, 100)
    for worker in range(3):
        child = os.fork()
        if child == 0:
            for _ in range(worker + 1):
                CountingEventSink(shared, worker).emit(event)
            os._exit(0)
        os.waitpid(child, 0)
    found = numbers(CountingEventSink(shared, 1))
    labels = f'result="hit",route="manifest",upstream="{HUB.url}"'
    assert found[f"request_seconds_count{{{labels}}}"] == 6
    assert found[f"request_seconds_sum{{{labels}}}"] == pytest.approx(0.12)
    assert found[f'request_seconds_bucket{{le="0.025",{labels}}}'] == 6
    assert not [name for name in found if name.startswith("first_byte")]


def test_a_repeated_answer_is_counted_like_the_first() -> None:
    events = [
        RequestAnswered("manifest", "hit", HUB.url, 0.02, 100),
        ContentRequested(ContentKind.MANIFEST, is_hit=True),
        BytesDelivered(100),
    ]
    one, other = (CountingEventSink(SharedCounters(2, [HUB.url]), 1) for _ in range(2))
    repeat = other.repeater(events)
    assert repeat
    for _ in range(3):
        for event in events:
            one.emit(event)
        repeat(0.02)
    assert numbers(one) == numbers(other)
    assert one.repeater([SharedTierOpened()]) is None


# --- states ---


def test_states_of_workers_are_added_or_shown_for_each_worker() -> None:
    shared = SharedCounters(2, [HUB.url])
    first, second = (CountingEventSink(shared, row) for row in range(2))
    first.report(WorkerState(2, 5, 9, 20, {HUB.url: 3, URL: 1}, 0.25, 40, 1024))
    second.report(WorkerState(1, 1, 1, 1, {HUB.url: 1}, 0.5, 50, 1024))
    second.report(WorkerState(1, 0, 1, 2, {}, 0.5, 50, 1024))
    found = numbers(second)
    sums = ("downloads_running", "download_readers", "requests_in_progress", "client_connections")
    assert [found[name] for name in sums] == [3, 5, 10, 22]
    assert found[f'upstream_requests_in_progress{{upstream="{HUB.url}"}}'] == 3
    assert found['upstream_requests_in_progress{upstream="other"}'] == 1
    assert [found[f'event_loop_lag_seconds{{worker="{worker}"}}'] for worker in range(2)] == [0.25, 0.5]
    assert [found[f'open_file_descriptors{{worker="{worker}"}}'] for worker in range(2)] == [40, 50]


def test_the_last_measurement_of_the_cache_is_shown() -> None:
    sink = CountingEventSink(SharedCounters(2), 0)
    sink.emit(CacheMeasured(1, 2, 3, 4, 5))
    sink.emit(CacheMeasured(100, 200, 300, 400, 500))
    names = ("cache_bytes", "cache_limit_bytes", "cache_free_disk_bytes", "cache_disk_bytes", "cache_objects")
    assert [numbers(sink)[name] for name in names] == [100, 200, 300, 400, 500]


def test_the_last_measurement_of_the_content_of_each_upstream_is_shown() -> None:
    shared = SharedCounters(2, [HUB.url, QUAY.url])
    first, second = (CountingEventSink(shared, row) for row in range(2))
    first.report_by_upstream({HUB.url: Stored(9, 900), QUAY.url: Stored(3, 30)})
    # Upstreams that a reload has added, or that were removed from the settings, count together.
    second.report_by_upstream({HUB.url: Stored(2, 2**40), URL: Stored(1, 5), f"{URL}/two": Stored(1, 6)})
    found = numbers(first)
    shown = {
        what: [found[f'upstream_cache_{what}{{upstream="{one}"}}'] for one in (HUB.url, QUAY.url, "other")]
        for what in ("bytes", "objects")
    }
    assert shown == {"bytes": [2**40, 0, 11], "objects": [2, 0, 2]}


def test_the_numbers_of_pinned_images_are_the_last_measured() -> None:
    shared = SharedCounters(2)
    CountingEventSink(shared, 0).emit(PinsMeasured(1, 2))
    CountingEventSink(shared, 1).emit(PinsMeasured(300, 4))
    found = numbers(CountingEventSink(shared, 0))
    assert (found["cache_pinned_bytes"], found["cache_pin_problems"]) == (300, 4)


def test_an_endpoint_is_available_while_all_workers_use_it() -> None:
    second = "https://second.test"
    shared = SharedCounters(2, {HUB.url: [HUB.url, second], QUAY.url: [QUAY.url]})
    sinks = [CountingEventSink(shared, row) for row in range(2)]
    names = [f'endpoint_available{{endpoint="{one}",upstream="{HUB.url}"}}' for one in (HUB.url, second)]
    steps: list[tuple[int, Event, list[float]]] = [
        (0, EndpointFailed(HUB.url, second, "refused"), [1, 0]),
        (1, EndpointFailed(HUB.url, second, "refused"), [1, 0]),
        (0, EndpointRecovered(HUB.url, second), [1, 0]),
        (1, EndpointRecovered(HUB.url, second), [1, 1]),
        (1, EndpointFailed(HUB.url, HUB.url, "refused"), [0, 1]),
        (1, EndpointFailed("https://added.test", "https://added.test", "refused"), [0, 1]),
    ]
    for worker, event, expected in steps:
        sinks[worker].emit(event)
        assert [numbers(sinks[0])[name] for name in names] == expected, event
    sinks[1].forget_endpoints()  # a worker that replaces it, or a reload
    assert [numbers(sinks[0])[name] for name in names] == [1, 1]
    assert not [name for name in numbers(sinks[0]) if "endpoint_available" in name and QUAY.url in name]


def test_the_version_is_shown() -> None:
    assert numbers(CountingEventSink(SharedCounters(1, version="1.2.3"), 0))['build_info{version="1.2.3"}'] == 1


# --- the text ---


def busy_sink(workers: int, upstreams: Sequence[str]) -> CountingEventSink:
    """One of several workers that have observed every combination of labels."""
    shared = SharedCounters(workers, upstreams)
    sinks = [CountingEventSink(shared, worker) for worker in range(workers)]
    for place, (route, result, upstream) in enumerate(product(ROUTES, RESULTS, ("", *upstreams))):
        sinks[place % workers].emit(RequestAnswered(route, result, upstream, place / 7, place**3, place / 11))
        sinks[place % 3].emit(RequestAnswered(route, result, upstream, 0.003, 10**15, 0.001))
    for place, (upstream, kind, answer) in enumerate(product(upstreams, UPSTREAM_KINDS, UPSTREAM_RESULTS)):
        sinks[place % workers].emit(UpstreamAnswered(upstream, kind, answer, place / 3))
    return sinks[0]


def test_no_part_of_a_long_page_is_long() -> None:
    sizes = [len(part) for part in busy_sink(8, [f"https://registry-{number}.test" for number in range(20)]).parts()]
    assert sum(sizes) > 10 * 1024 * 1024
    assert max(sizes) < sum(sizes) / 100


def test_the_text_is_that_of_the_library() -> None:
    """prometheus_client reads the text, and writes the same."""
    odd = SharedHistogram(2, {"kind": ("a",), "upstream": ('https://"\\.test',)}, (0.5, 1.0))
    odd.observe(odd.place(1, ("a", 'https://"\\.test')), 0.7)
    text = b"".join([*busy_sink(3, [HUB.url]).parts(), *histogram_text("odd", "A meaning", ("kind", "upstream"), odd)])

    class Read(Collector):
        def collect(self) -> Iterator[Metric]:
            return text_string_to_metric_families(text.decode())

    assert generate_latest(Read()) == text


# --- the history ---


def test_totals_are_sums_over_workers_upstreams_and_kinds() -> None:
    shared = SharedCounters(2, [HUB.url])
    for worker in range(2):
        sink = CountingEventSink(shared, worker)
        for kind in ContentKind:
            sink.emit(ContentRequested(kind, is_hit=True))
            sink.emit(ContentRequested(kind, is_hit=False))
        sink.emit(BytesFetched(100))
        sink.emit(BytesDelivered(300))
        for result, size in (("hit", 10), ("joined", 20), ("stale", 30), ("miss", 1000), ("client_left", 1000)):
            sink.emit(RequestAnswered("manifest", result, HUB.url, 0.02, size))
        # A blob may take long because the client is slow, so only the first byte counts.
        sink.emit(RequestAnswered("blob", "hit", URL, 1000.0, 40, 400.0))
        for route in ("ping", "operation", "other", "token"):
            for result in ("refused", "upstream_fault", "mirror_fault"):
                sink.emit(RequestAnswered(route, result, "", 0.02, 5))
    totals = shared.totals()
    assert (totals.hits, totals.misses, totals.bytes_in, totals.bytes_out) == (4, 4, 200, 600)
    assert totals.bytes_saved == 2 * (10 + 20 + 30 + 40)
    assert (totals.refused, totals.upstream_faults, totals.mirror_faults, totals.client_left) == (2, 2, 2, 2)
    assert {place: count for place, count in enumerate(totals.latencies) if count} == {4: 8, 16: 2}
