"""Counters in memory that all workers share, and the metrics page for Prometheus."""

import mmap
from collections.abc import Iterable, Iterator
from operator import attrgetter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from adapters.telemetry.shared_allowances import SharedAllowances, WorkerAllowanceTable
from domain.events import (
    BackOffStarted,
    BytesDelivered,
    BytesFetched,
    CacheFull,
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
    PullDenied,
    SharedIndexLost,
    SharedIndexRecovered,
    SharedStoreLost,
    SharedStoreRecovered,
    StaleServed,
    UpstreamFailed,
)
from domain.records import ContentKind

_PREFIX = "docker_image_proxy_"
_BYTES = 8  # of one counter
# Each counter: name, help text, and the event that it counts. Counters of ContentRequested have the label `kind`.
_COUNTERS: tuple[tuple[str, str, type[Event]], ...] = (
    ("cache_hits", "Manifests and blobs served entirely from the cache", ContentRequested),
    ("cache_misses", "Manifests and blobs fetched from an upstream", ContentRequested),
    ("fill_joins", "Requests that joined a running download", DownloadJoined),
    ("fills", "Downloads of blobs into the cache that were started", DownloadStarted),
    ("fill_resumes", "Downloads resumed after the upstream broke off", DownloadResumed),
    ("upstream_bytes", "Bytes of manifests and blobs received from upstreams", BytesFetched),
    ("client_bytes", "Bytes of manifests and blobs sent to clients", BytesDelivered),
    ("stale_answers", "Answers from the cache during an outage of the upstream", StaleServed),
    (
        "throttled",
        "Back-offs that began because an upstream limits its rate, for each worker and login",
        BackOffStarted,
    ),
    ("evictions", "Manifests and blobs removed to make room", ContentEvicted),
    ("wrong_content", "Manifests and blobs from upstreams that did not match their digest", DigestMismatch),
    ("damaged_content", "Stored manifests and blobs found damaged", ContentDamaged),
    ("storage_full", "Blobs delivered without being stored, because there was no room", CacheFull),
    (
        "storage_failures",
        "Blobs and manifests not stored for another reason than room; the log has the reason",
        CacheWriteFailed,
    ),
    ("upstream_failures", "Failed requests that ask an upstream how to authenticate", UpstreamFailed),
    ("pulls_denied", "Requests denied by the access rules", PullDenied),
    ("logins_slowed", "Logins delayed because of earlier wrong logins", LoginDelayed),
    ("logins_turned_away", "Logins rejected without a check because of too many wrong logins", LoginRejected),
    ("endpoint_failures", "Failures of an address of an upstream with several addresses", EndpointFailed),
    ("endpoint_recoveries", "Recoveries of an address of an upstream with several addresses", EndpointRecovered),
    ("shared_index_failures", "Failures after which a worker does without the shared index", SharedIndexLost),
    ("shared_index_recoveries", "Recoveries of the shared index, as seen by a worker", SharedIndexRecovered),
    ("shared_store_failures", "Failures after which a worker does without the shared store", SharedStoreLost),
    ("shared_store_recoveries", "Recoveries of the shared store, as seen by a worker", SharedStoreRecovered),
)
_NAME_OF_EVENT = {event: name for name, _, event in _COUNTERS}


def _kinds(event: type[Event]) -> Iterable[ContentKind | None]:
    """The values of the label `kind` of a counter; only None for a counter without labels."""
    return ContentKind if event is ContentRequested else (None,)


_COUNTER_INDEX = {
    key: index for index, key in enumerate((name, kind) for name, _, event in _COUNTERS for kind in _kinds(event))
}
"""The index of each counter in the memory of one worker, by name and label."""

# Only for upstreams that have sent rate limit headers: name, help text, and how to get the value.
_GAUGES = (
    ("allowance_limit", "Manifests that the mirror may fetch from the upstream in one window", attrgetter("limit")),
    ("allowance_remaining", "Manifests that are left in this window", attrgetter("remaining")),
    ("allowance_window_seconds", "Length of the window", attrgetter("window")),
    ("allowance_seen_timestamp_seconds", "Time at which the upstream reported these values", attrgetter("seen_at")),
)


class SharedCounters(Collector):
    """The counters of each worker, in shared memory that the main process creates before it forks the workers.

    Only one worker writes to each set of counters, so there are no locks. A worker that replaces a dead one continues
    its counters. `upstreams`: the URLs of the upstreams whose allowances are stored beside the counters.
    """

    def __init__(self, workers: int, upstreams: Iterable[str] = ()) -> None:
        self.allowances = SharedAllowances(workers, upstreams)
        self._numbers = memoryview(mmap.mmap(-1, workers * len(_COUNTER_INDEX) * _BYTES)).cast("Q")

    def add(self, worker: int, index: int, count: int) -> None:
        self._numbers[worker * len(_COUNTER_INDEX) + index] += count

    def collect(self) -> Iterator[Metric]:
        """The sums over all workers, and the newest allowance of each upstream."""
        for name, meaning, event in _COUNTERS:
            counter = CounterMetricFamily(
                _PREFIX + name, meaning, labels=("kind",) if event is ContentRequested else ()
            )
            for kind in _kinds(event):
                total = sum(self._numbers[_COUNTER_INDEX[name, kind] :: len(_COUNTER_INDEX)])
                counter.add_metric((kind.value,) if kind else (), total)
            yield counter
        known = list(self.allowances.all())
        for name, meaning, value_of in _GAUGES:
            gauge = GaugeMetricFamily(_PREFIX + name, meaning, labels=("upstream",))
            for url, allowance in known:
                gauge.add_metric((url,), value_of(allowance))
            yield gauge


class CountingEventSink:
    """Implements EventSink and MetricsPage. `worker`: the number of this worker, from 0."""

    def __init__(self, counters: SharedCounters, worker: int) -> None:
        self._counters = counters
        self._worker = worker
        self.allowance_table = WorkerAllowanceTable(counters.allowances, worker)

    def emit(self, event: Event) -> None:
        kind = None
        if isinstance(event, ContentRequested):
            name, kind = ("cache_hits" if event.is_hit else "cache_misses"), event.kind
        elif type(event) in _NAME_OF_EVENT:
            name = _NAME_OF_EVENT[type(event)]
        else:
            return
        # An event without the field `count` counts once.
        self._counters.add(self._worker, _COUNTER_INDEX[name, kind], getattr(event, "count", 1))

    def render(self) -> tuple[bytes, str]:
        return generate_latest(self._counters), CONTENT_TYPE_LATEST
