"""Counters in memory that all workers share, and the page that Prometheus reads."""

import mmap
from collections.abc import Iterable, Iterator
from operator import attrgetter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from adapters.telemetry.shared_allowances import SharedAllowances, WorkerAllowanceTable
from domain.events import (
    BackedOff,
    BytesDelivered,
    BytesFetched,
    ContentAsked,
    ContentDamaged,
    ContentEvicted,
    DownloadJoined,
    DownloadResumed,
    DownloadStarted,
    EndpointFailed,
    EndpointRecovered,
    Event,
    LoginRefused,
    LoginSlowed,
    PullDenied,
    StaleServed,
    StorageBroke,
    StorageRanFull,
    UpstreamFailed,
    WrongContent,
)
from domain.records import ContentKind

_PREFIX = "docker_image_proxy_"
_BYTES = 8  # of one counter
_KINDS = tuple(ContentKind)
# In the order in which the counters lie in memory: name, what it counts, its values of the label `kind` if it has one.
_COUNTERS: tuple[tuple[str, str, tuple[ContentKind, ...]], ...] = (
    ("cache_hits", "Manifests and blobs served entirely from the cache", _KINDS),
    ("cache_misses", "Manifests and blobs fetched from an upstream", _KINDS),
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
_PLACES = {
    (name, kind): place
    for place, (name, kind) in enumerate((name, kind) for name, _, kinds in _COUNTERS for kind in kinds or (None,))
}
_SIMPLE: dict[type[object], int] = {
    DownloadJoined: _PLACES["fill_joins", None],
    DownloadStarted: _PLACES["fills", None],
    DownloadResumed: _PLACES["fill_resumes", None],
    StaleServed: _PLACES["stale_answers", None],
    BackedOff: _PLACES["throttled", None],
    WrongContent: _PLACES["wrong_content", None],
    ContentDamaged: _PLACES["damaged_content", None],
    StorageRanFull: _PLACES["storage_full", None],
    StorageBroke: _PLACES["storage_failures", None],
    UpstreamFailed: _PLACES["upstream_failures", None],
    PullDenied: _PLACES["pulls_denied", None],
    LoginSlowed: _PLACES["logins_slowed", None],
    LoginRefused: _PLACES["logins_turned_away", None],
    EndpointFailed: _PLACES["endpoint_failures", None],
    EndpointRecovered: _PLACES["endpoint_recoveries", None],
}

# What is known of an upstream's allowance only where it has said something: name, what it tells, where it stands.
_GAUGES = (
    ("allowance_limit", "Manifests that the mirror may fetch from the upstream in one window", attrgetter("limit")),
    ("allowance_remaining", "Manifests that are left in this window", attrgetter("remaining")),
    ("allowance_window_seconds", "Length of the window", attrgetter("window")),
    ("allowance_seen_timestamp_seconds", "Time at which the upstream reported these values", attrgetter("seen_at")),
)


class SharedCounters:
    """One row for each worker, in memory made before the workers are forked. A row has one writer, so nothing is
    locked; a worker that takes the place of a dead one counts on where that one ended. `upstreams`: the addresses of
    those whose allowances are kept beside the counters.
    """

    def __init__(self, rows: int, upstreams: Iterable[str] = ()) -> None:
        self.allowances = SharedAllowances(rows, upstreams)
        self._numbers = memoryview(mmap.mmap(-1, rows * len(_PLACES) * _BYTES)).cast("Q")

    def add(self, row: int, place: int, count: int) -> None:
        self._numbers[row * len(_PLACES) + place] += count

    def total(self, place: int) -> int:
        return sum(self._numbers[place :: len(_PLACES)])


class CountingEventSink:
    """Plays the EventSink and the MetricsPage. `row` is this worker's."""

    def __init__(self, counters: SharedCounters, row: int) -> None:
        self._counters = counters
        self._row = row
        self.board = WorkerAllowanceTable(counters.allowances, row)
        self._registry = CollectorRegistry()
        self._registry.register(_Totals(counters))

    def emit(self, event: Event) -> None:
        match event:
            case ContentAsked(kind, is_hit):
                self._add(_PLACES["cache_hits" if is_hit else "cache_misses", kind], 1)
            case BytesFetched(count):
                self._add(_PLACES["upstream_bytes", None], count)
            case BytesDelivered(count):
                self._add(_PLACES["client_bytes", None], count)
            case ContentEvicted(count, _):
                self._add(_PLACES["evictions", None], count)
            case _:
                place = _SIMPLE.get(type(event))
                if place is not None:
                    self._add(place, 1)

    def render(self) -> tuple[bytes, str]:
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _add(self, place: int, count: int) -> None:
        self._counters.add(self._row, place, count)


class _Totals(Collector):
    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        for name, meaning, kinds in _COUNTERS:
            family = CounterMetricFamily(_PREFIX + name, meaning, labels=("kind",) if kinds else ())
            for kind in kinds or (None,):
                family.add_metric((kind.value,) if kind else (), self._counters.total(_PLACES[name, kind]))
            yield family
        yield from self._allowances()

    def _allowances(self) -> Iterator[Metric]:
        known = list(self._counters.allowances.all())
        for name, meaning, value_of in _GAUGES:
            family = GaugeMetricFamily(_PREFIX + name, meaning, labels=("upstream",))
            for url, allowance in known:
                family.add_metric((url,), value_of(allowance))
            yield family
