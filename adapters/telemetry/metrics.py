"""Counters in memory that all workers share, and the metrics page for Prometheus."""

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
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
    UpstreamFailed,
)
from domain.records import ContentKind

_PREFIX = "docker_image_proxy_"
_BYTES = 8  # of one number


@dataclass(frozen=True)
class _Counter:
    """A counter of events. `labels`: the values of each label; each label has the name of a field of the event."""

    name: str
    meaning: str
    event: type[Event]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def series(self) -> Iterator[tuple[str, ...]]:
        """The values of the labels of each time series; one empty tuple without labels."""
        return product(*self.labels.values())


_KINDS = {"kind": tuple(kind.value for kind in ContentKind)}
_ROLES = {"role": ("found", "followed", "led", "took_over", "alone")}
_STORE_REQUESTS = {"operation": ("get", "put", "list", "delete"), "result": ("ok", "missing", "failed")}
_COUNTERS = (
    _Counter("cache_hits", "Manifests and blobs served entirely from the cache", ContentRequested, _KINDS),
    _Counter("cache_misses", "Manifests and blobs fetched from an upstream", ContentRequested, _KINDS),
    _Counter("fill_joins", "Requests that joined a running download", DownloadJoined),
    _Counter("fills", "Downloads of blobs into the cache that were started", DownloadStarted),
    _Counter("fill_resumes", "Downloads resumed after the upstream broke off", DownloadResumed),
    _Counter("upstream_bytes", "Bytes of manifests and blobs received from upstreams", BytesFetched),
    _Counter(
        "shared_bytes_received", "Bytes of manifests and blobs received from the shared store", SharedBytesReceived
    ),
    _Counter("shared_bytes_stored", "Bytes of manifests and blobs written to the shared store", SharedBytesStored),
    _Counter(
        "shared_downloads",
        "Blobs that the replica found in the shared store, received while another replica fetched them, fetched for "
        "all replicas, took over from a replica that had stopped, or fetched only for itself",
        SharedDownloadStarted,
        _ROLES,
    ),
    _Counter("shared_store_requests", "Requests to the shared store", SharedStoreAsked, _STORE_REQUESTS),
    _Counter("client_bytes", "Bytes of manifests and blobs sent to clients", BytesDelivered),
    _Counter("stale_answers", "Answers from the cache during an outage of the upstream", StaleServed),
    _Counter(
        "throttled",
        "Back-offs that began because an upstream limits its rate, for each worker and login",
        BackOffStarted,
    ),
    _Counter("shared_evictions", "Objects removed from the shared store", SharedContentEvicted),
    _Counter("evictions", "Manifests and blobs removed to make room", ContentEvicted),
    _Counter("wrong_content", "Manifests and blobs from upstreams that did not match their digest", DigestMismatch),
    _Counter("damaged_content", "Stored manifests and blobs found damaged", ContentDamaged),
    _Counter("storage_full", "Blobs delivered without being stored, because there was no room", CacheFull),
    _Counter(
        "storage_failures",
        "Blobs and manifests not stored for another reason than room; the log has the reason",
        CacheWriteFailed,
    ),
    _Counter("upstream_failures", "Failed requests that ask an upstream how to authenticate", UpstreamFailed),
    _Counter("pulls_denied", "Requests denied by the access rules", PullDenied),
    _Counter("logins_slowed", "Logins delayed because of earlier wrong logins", LoginDelayed),
    _Counter("logins_turned_away", "Logins rejected without a check because of too many wrong logins", LoginRejected),
    _Counter("endpoint_failures", "Failures of an address of an upstream with several addresses", EndpointFailed),
    _Counter(
        "endpoint_recoveries", "Recoveries of an address of an upstream with several addresses", EndpointRecovered
    ),
    _Counter("shared_index_failures", "Failures after which a worker does without the shared index", SharedIndexLost),
    _Counter("shared_index_recoveries", "Recoveries of the shared index, as seen by a worker", SharedIndexRecovered),
    _Counter("shared_store_failures", "Failures after which a worker does without the shared store", SharedStoreLost),
    _Counter("shared_store_recoveries", "Recoveries of the shared store, as seen by a worker", SharedStoreRecovered),
)
_COUNTER_OF_EVENT = {one.event: one for one in _COUNTERS}
_HITS, _MISSES = _COUNTERS[:2]
_COUNTER_INDEX = {
    key: index for index, key in enumerate((one.name, values) for one in _COUNTERS for values in one.series())
}
"""The index of each time series in the memory of one worker, by the name of its counter and the values of labels."""

# Only for upstreams that have sent rate limit headers: name, help text, and how to get the value.
_GAUGES = (
    ("allowance_limit", "Manifests that the mirror may fetch from the upstream in one window", attrgetter("limit")),
    ("allowance_remaining", "Manifests that are left in this window", attrgetter("remaining")),
    ("allowance_window_seconds", "Length of the window", attrgetter("window")),
    ("allowance_seen_timestamp_seconds", "Time at which the upstream reported these values", attrgetter("seen_at")),
)


# Only with a shared store and a shared index: name, help text, and the events that say that it is there, or lost.
_SERVICES: tuple[tuple[str, str, tuple[type[Event], ...], type[Event]], ...] = (
    (
        "shared_store_available",
        "1 if the shared store answers all workers, otherwise 0",
        (SharedTierOpened, SharedStoreRecovered),
        SharedStoreLost,
    ),
    (
        "shared_index_available",
        "1 if the shared index answers all workers, otherwise 0",
        (SharedTierOpened, SharedIndexRecovered),
        SharedIndexLost,
    ),
)
_SERVICE_EVENTS = frozenset(event for _, _, available, lost in _SERVICES for event in (*available, lost))
_UNUSED, _AVAILABLE, _LOST = range(3)


class SharedCounters(Collector):
    """The counters of each worker, in shared memory that the main process creates before it forks the workers.

    Only one worker writes to each set of counters, so there are no locks. A worker that replaces a dead one continues
    its counters. `upstreams`: the URLs of the upstreams whose allowances are stored beside the counters.
    """

    def __init__(self, workers: int, upstreams: Iterable[str] = ()) -> None:
        self.allowances = SharedAllowances(workers, upstreams)
        self._numbers = _shared_numbers(workers * len(_COUNTER_INDEX))
        self._services = _shared_numbers(workers * len(_SERVICES))

    def add(self, worker: int, index: int, count: int) -> None:
        self._numbers[worker * len(_COUNTER_INDEX) + index] += count

    def set_service(self, worker: int, index: int, state: int) -> None:
        self._services[worker * len(_SERVICES) + index] = state

    def collect(self) -> Iterator[Metric]:
        """The sums over all workers, the newest allowance of each upstream, and whether shared services answer."""
        for one in _COUNTERS:
            counter = CounterMetricFamily(_PREFIX + one.name, one.meaning, labels=tuple(one.labels))
            for values in one.series():
                total = sum(self._numbers[_COUNTER_INDEX[one.name, values] :: len(_COUNTER_INDEX)])
                counter.add_metric(values, total)
            yield counter
        known = list(self.allowances.all())
        for name, meaning, value_of in _GAUGES:
            gauge = GaugeMetricFamily(_PREFIX + name, meaning, labels=("upstream",))
            for url, allowance in known:
                gauge.add_metric((url,), value_of(allowance))
            yield gauge
        for index, (name, meaning, _, _) in enumerate(_SERVICES):
            gauge = GaugeMetricFamily(_PREFIX + name, meaning)
            if states := [state for state in self._services[index :: len(_SERVICES)] if state != _UNUSED]:
                gauge.add_metric((), _LOST not in states)
            yield gauge


def _shared_numbers(count: int) -> memoryview:
    return memoryview(mmap.mmap(-1, count * _BYTES)).cast("Q")


class CountingEventSink:
    """Implements EventSink and MetricsPage. `worker`: the number of this worker, from 0."""

    def __init__(self, counters: SharedCounters, worker: int) -> None:
        self._counters = counters
        self._worker = worker
        self.allowance_table = WorkerAllowanceTable(counters.allowances, worker)

    def emit(self, event: Event) -> None:
        if type(event) in _SERVICE_EVENTS:
            self._note_service(type(event))
        counter = _COUNTER_OF_EVENT.get(type(event))
        if counter is None:
            return
        if isinstance(event, ContentRequested):
            counter, values = _HITS if event.is_hit else _MISSES, (event.kind.value,)
        else:
            values = tuple(getattr(event, label) for label in counter.labels)
        # An event without the field `count` counts once.
        self._counters.add(self._worker, _COUNTER_INDEX[counter.name, values], getattr(event, "count", 1))

    def forget_services(self) -> None:
        """The mirror has no shared store and no shared index, or no longer."""
        for index in range(len(_SERVICES)):
            self._counters.set_service(self._worker, index, _UNUSED)

    def _note_service(self, event: type[Event]) -> None:
        for index, (_, _, available, lost) in enumerate(_SERVICES):
            if event is lost or event in available:
                self._counters.set_service(self._worker, index, _LOST if event is lost else _AVAILABLE)

    def render(self) -> tuple[bytes, str]:
        return generate_latest(self._counters), CONTENT_TYPE_LATEST
