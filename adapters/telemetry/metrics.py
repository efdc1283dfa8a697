"""Counters in memory that all workers share, and the metrics page for Prometheus."""

import mmap
from collections.abc import Iterable, Iterator
from operator import attrgetter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

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
    StaleServed,
    UpstreamFailed,
)
from domain.records import ContentKind

_PREFIX = "docker_image_proxy_"
_BYTES = 8  # of one counter
_CONTENT_KINDS = tuple(ContentKind)
# In the order of the counters in memory: name, help text, and the values of the label `kind`, if it has that label.
_COUNTERS: tuple[tuple[str, str, tuple[ContentKind, ...]], ...] = (
    ("cache_hits", "Manifests and blobs served entirely from the cache", _CONTENT_KINDS),
    ("cache_misses", "Manifests and blobs fetched from an upstream", _CONTENT_KINDS),
    ("fill_joins", "Requests that joined a running download", ()),
    ("fills", "Downloads of blobs into the cache that were started", ()),
    ("fill_resumes", "Downloads resumed after the upstream broke off", ()),
    ("upstream_bytes", "Bytes of manifests and blobs received from upstreams", ()),
    ("client_bytes", "Bytes of manifests and blobs sent to clients", ()),
    ("stale_answers", "Answers from the cache during an outage of the upstream", ()),
    ("throttled", "Back-offs that began because an upstream limits its rate, for each worker and login", ()),
    ("evictions", "Manifests and blobs removed to make room", ()),
    ("wrong_content", "Manifests and blobs from upstreams that did not match their digest", ()),
    ("damaged_content", "Stored manifests and blobs found damaged", ()),
    ("storage_full", "Blobs delivered without being stored, because there was no room", ()),
    ("storage_failures", "Blobs and manifests not stored for another reason than room; the log has the reason", ()),
    ("upstream_failures", "Failed requests that ask an upstream how to authenticate", ()),
    ("pulls_denied", "Requests denied by the access rules", ()),
    ("logins_slowed", "Logins delayed because of earlier wrong logins", ()),
    ("logins_turned_away", "Logins rejected without a check because of too many wrong logins", ()),
    ("endpoint_failures", "Failures of an address of an upstream with several addresses", ()),
    ("endpoint_recoveries", "Recoveries of an address of an upstream with several addresses", ()),
)
_COUNTER_INDEX = {
    (name, kind): index
    for index, (name, kind) in enumerate((name, kind) for name, _, kinds in _COUNTERS for kind in kinds or (None,))
}
_COUNTER_OF_EVENT: dict[type[object], int] = {
    DownloadJoined: _COUNTER_INDEX["fill_joins", None],
    DownloadStarted: _COUNTER_INDEX["fills", None],
    DownloadResumed: _COUNTER_INDEX["fill_resumes", None],
    StaleServed: _COUNTER_INDEX["stale_answers", None],
    BackOffStarted: _COUNTER_INDEX["throttled", None],
    DigestMismatch: _COUNTER_INDEX["wrong_content", None],
    ContentDamaged: _COUNTER_INDEX["damaged_content", None],
    CacheFull: _COUNTER_INDEX["storage_full", None],
    CacheWriteFailed: _COUNTER_INDEX["storage_failures", None],
    UpstreamFailed: _COUNTER_INDEX["upstream_failures", None],
    PullDenied: _COUNTER_INDEX["pulls_denied", None],
    LoginDelayed: _COUNTER_INDEX["logins_slowed", None],
    LoginRejected: _COUNTER_INDEX["logins_turned_away", None],
    EndpointFailed: _COUNTER_INDEX["endpoint_failures", None],
    EndpointRecovered: _COUNTER_INDEX["endpoint_recoveries", None],
}

# Only for upstreams that have sent rate limit headers: name, help text, and how to get the value.
_GAUGES = (
    ("allowance_limit", "Manifests that the mirror may fetch from the upstream in one window", attrgetter("limit")),
    ("allowance_remaining", "Manifests that are left in this window", attrgetter("remaining")),
    ("allowance_window_seconds", "Length of the window", attrgetter("window")),
    ("allowance_seen_timestamp_seconds", "Time at which the upstream reported these values", attrgetter("seen_at")),
)


class SharedCounters:
    """The counters of each worker, in shared memory that the main process creates before it forks the workers.

    Only one worker writes to each set of counters, so there are no locks. A worker that replaces a dead one continues
    its counters. `upstreams`: the URLs of the upstreams whose allowances are stored beside the counters.
    """

    def __init__(self, workers: int, upstreams: Iterable[str] = ()) -> None:
        self.allowances = SharedAllowances(workers, upstreams)
        self._numbers = memoryview(mmap.mmap(-1, workers * len(_COUNTER_INDEX) * _BYTES)).cast("Q")

    def add(self, worker: int, index: int, count: int) -> None:
        self._numbers[worker * len(_COUNTER_INDEX) + index] += count

    def total(self, index: int) -> int:
        return sum(self._numbers[index :: len(_COUNTER_INDEX)])


class CountingEventSink:
    """Implements EventSink and MetricsPage. `worker`: the number of this worker, from 0."""

    def __init__(self, counters: SharedCounters, worker: int) -> None:
        self._counters = counters
        self._worker = worker
        self.allowance_table = WorkerAllowanceTable(counters.allowances, worker)
        self._registry = CollectorRegistry()
        self._registry.register(_Totals(counters))

    def emit(self, event: Event) -> None:
        match event:
            case ContentRequested(kind, is_hit):
                self._add(_COUNTER_INDEX["cache_hits" if is_hit else "cache_misses", kind], 1)
            case BytesFetched(count):
                self._add(_COUNTER_INDEX["upstream_bytes", None], count)
            case BytesDelivered(count):
                self._add(_COUNTER_INDEX["client_bytes", None], count)
            case ContentEvicted(count, _):
                self._add(_COUNTER_INDEX["evictions", None], count)
            case _:
                index = _COUNTER_OF_EVENT.get(type(event))
                if index is not None:
                    self._add(index, 1)

    def render(self) -> tuple[bytes, str]:
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _add(self, index: int, count: int) -> None:
        self._counters.add(self._worker, index, count)


class _Totals(Collector):
    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        for name, meaning, kinds in _COUNTERS:
            family = CounterMetricFamily(_PREFIX + name, meaning, labels=("kind",) if kinds else ())
            for kind in kinds or (None,):
                family.add_metric((kind.value,) if kind else (), self._counters.total(_COUNTER_INDEX[name, kind]))
            yield family
        yield from self._allowances()

    def _allowances(self) -> Iterator[Metric]:
        known = list(self._counters.allowances.all())
        for name, meaning, value_of in _GAUGES:
            family = GaugeMetricFamily(_PREFIX + name, meaning, labels=("upstream",))
            for url, allowance in known:
                family.add_metric((url,), value_of(allowance))
            yield family
