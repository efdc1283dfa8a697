"""Counters in memory that all workers share, and the metrics page for Prometheus."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain, product
from operator import attrgetter
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from adapters.telemetry.activity import SharedActivity
from adapters.telemetry.jobs import SharedJobs
from adapters.telemetry.prometheus_text import families_text, histogram_text
from adapters.telemetry.pull_log import SharedPulls
from adapters.telemetry.shared_allowances import SharedAllowances, WorkerAllowanceTable
from adapters.telemetry.shared_history import SharedHistory
from adapters.telemetry.shared_numbers import OTHER, SharedHistogram, shared_floats, shared_integers
from application.ports.index import Stored
from application.ports.jobs import Jobs
from application.ports.telemetry import Traffic, WorkerState
from domain.events import (
    REGISTRY_ROUTES,
    RESULTS,
    ROUTES,
    UPSTREAM_KINDS,
    UPSTREAM_RESULTS,
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
    PinsMeasured,
    PullDenied,
    QueueLeft,
    RequestAnswered,
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
    UpstreamAnswered,
    UpstreamFailed,
)
from domain.history import DURATION_BOUNDS, Totals
from domain.records import ContentKind
from domain.value import Value

_PREFIX = "docker_image_proxy_"


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


class _Histogram(Value, frozen=True):
    """A histogram of one field of an event. `labels`: as in _Counter, where None means the URLs of all upstreams.
    `value`: the observed number; None if the event has none, which is then not counted.
    """

    name: str
    meaning: str
    event: type[Event]
    value: Callable[[Any], float | None]
    labels: Mapping[str, tuple[str, ...] | None]
    bounds: tuple[float, ...]


def _speed(event: BodiesReceived) -> float | None:
    """Bytes a second. None for a short body, whose time is that of the first byte."""
    return event.size / event.seconds if event.size >= _LARGE and event.seconds > 0 else None


_LARGE = 1024 * 1024
_SIZES = tuple(float(2**power) for power in range(10, 36, 2))
_SPEEDS = tuple(float(2**power) for power in range(16, 33, 2))
_ANSWERED: Mapping[str, tuple[str, ...] | None] = {"route": ROUTES, "result": RESULTS, "upstream": None}
_HISTOGRAMS = (
    _Histogram(
        "request_seconds",
        "Time from the request of a client to the end of the response",
        RequestAnswered,
        attrgetter("seconds"),
        _ANSWERED,
        DURATION_BOUNDS,
    ),
    _Histogram(
        "response_bytes", "Bytes of the bodies of responses", RequestAnswered, attrgetter("size"), _ANSWERED, _SIZES
    ),
    _Histogram(
        "first_byte_seconds",
        "Time from the request of a client to the first byte of a streamed body, as blobs have it",
        RequestAnswered,
        attrgetter("first_byte_seconds"),
        _ANSWERED,
        DURATION_BOUNDS,
    ),
    _Histogram(
        "upstream_request_seconds",
        "Time from a request to an upstream to the head of its response, without the time in the queue",
        UpstreamAnswered,
        attrgetter("seconds"),
        {"upstream": None, "kind": UPSTREAM_KINDS, "result": UPSTREAM_RESULTS},
        DURATION_BOUNDS,
    ),
    _Histogram(
        "upstream_queue_seconds",
        "Time that requests to an upstream waited because of its limits; requests that did not wait are not counted",
        QueueLeft,
        attrgetter("seconds"),
        {"upstream": None},
        DURATION_BOUNDS,
    ),
    _Histogram(
        "download_bytes_per_second",
        "Speed of transfers of blobs from an upstream that received 1 MiB or more",
        BodiesReceived,
        _speed,
        {"upstream": None},
        _SPEEDS,
    ),
)
_HISTOGRAMS_OF_EVENT = {
    event: tuple(number for number, one in enumerate(_HISTOGRAMS) if one.event is event)
    for event in {one.event for one in _HISTOGRAMS}
}
_HISTOGRAM_INDEX = {one.name: index for index, one in enumerate(_HISTOGRAMS)}

# What the history counts.
_CONTENT_ROUTES = frozenset({"manifest", "blob"})
_ROUTES_WITH_FAULTS = frozenset(ROUTES) - {"ping", "operation", "other"}
"""The first request of most clients, a ping, is refused with a challenge, and strangers ask for unknown paths."""
_FROM_CACHE = frozenset({"hit", "joined", "stale"})
_SUCCESSES = _FROM_CACHE | {"miss", "ok"}

# Sums over all workers: name, help text, and the field of WorkerState.
_SUMS = (
    ("downloads_running", "Downloads of blobs that run now", attrgetter("downloads")),
    ("download_readers", "Requests that read from a running download now", attrgetter("readers")),
    ("requests_in_progress", "Requests of clients that are being answered now", attrgetter("requests")),
    ("client_connections", "Open connections of clients", attrgetter("connections")),
)
# For each worker
_OF_WORKER = (
    (
        "event_loop_lag_seconds",
        "The longest delay of the event loop of a worker in the last 15 seconds",
        attrgetter("loop_lag_seconds"),
    ),
    ("open_file_descriptors", "File descriptors that a worker uses", attrgetter("open_files")),
    ("max_file_descriptors", "The limit of file descriptors of a worker", attrgetter("max_open_files")),
)
_STATE = (*_SUMS, *_OF_WORKER)
# Of the cache, which all workers share: name, help text, and the field of CacheMeasured.
_CACHE = (
    ("cache_bytes", "Bytes of the content and the partial blobs in the cache", attrgetter("size")),
    ("cache_limit_bytes", "The most bytes that the cache may have", attrgetter("limit")),
    ("cache_objects", "Manifests and blobs in the cache", attrgetter("count")),
    ("cache_free_disk_bytes", "Free bytes on the file system of the cache", attrgetter("free")),
    ("cache_disk_bytes", "The size of the file system of the cache", attrgetter("total")),
)
# For each upstream: name, help text, and the field of Stored.
_CACHE_BY_UPSTREAM = (
    ("upstream_cache_bytes", "Bytes of the cached manifests and blobs that the upstream has sent", attrgetter("size")),
    ("upstream_cache_objects", "Cached manifests and blobs that the upstream has sent", attrgetter("count")),
)
# Of the pinned images in the cache: name, help text, and the field of PinsMeasured.
_PINS = (
    ("cache_pinned_bytes", "Bytes of the content of all pinned images, stored or not", attrgetter("size")),
    ("cache_pin_problems", "Pinned images whose last check failed", attrgetter("problems")),
)


def _in_each(cumulated: Sequence[int], count: int) -> list[int]:
    """The numbers in each bucket, and those above the last bound."""
    return [upper - lower for upper, lower in zip((*cumulated, count), (0, *cumulated), strict=True)]


def _labelled(routes: AbstractSet[str], results: AbstractSet[str]) -> Callable[[tuple[str, ...]], bool]:
    """Whether a series of RequestAnswered, by the values of its labels, is of one of these routes and results."""
    return lambda labels: labels[0] in routes and labels[1] in results


class SharedCounters:
    """The metrics of each worker, in shared memory that the main process creates before it forks the workers.

    Only one worker writes to each set of numbers, so there are no locks. A worker that replaces a dead one continues
    its counters. `upstreams`: the URLs of the upstreams that have numbers of their own, each with the URLs of all its
    endpoints if it has several; other upstreams, which a reload has added, count together. `version`: of the service.

    The newest pulls, the running downloads, the history and the last job, which the page shows, are stored beside them.
    """

    def __init__(
        self, workers: int, upstreams: Mapping[str, Sequence[str]] | Iterable[str] = (), version: str = ""
    ) -> None:
        names = tuple(dict.fromkeys(upstreams))
        endpoints = upstreams if isinstance(upstreams, Mapping) else {}
        self.workers = workers
        self._version = version
        self.allowances = SharedAllowances(workers, names)
        self.pulls = SharedPulls(workers)
        self.history = SharedHistory(self.totals)
        self.activity = SharedActivity(workers)
        self.jobs: Jobs = SharedJobs()
        self._numbers = shared_integers(workers * len(_COUNTER_INDEX))
        self._services = shared_integers(workers * len(_SERVICES))
        self._upstreams = {name: place for place, name in enumerate(dict.fromkeys((*names, OTHER)))}
        self._histograms = tuple(
            SharedHistogram(
                workers,
                # The mirror answers some requests without an upstream.
                {name: values or ("", *self._upstreams) for name, values in one.labels.items()},
                one.bounds,
            )
            for one in _HISTOGRAMS
        )
        self._states = shared_floats(workers * len(_STATE))
        self._upstream_requests = shared_floats(workers * len(self._upstreams))
        self._cache = shared_floats(len(_CACHE))
        self._cache_by_upstream = shared_floats(len(_CACHE_BY_UPSTREAM) * len(self._upstreams))
        self._pins = shared_floats(len(_PINS))
        pairs = [(name, endpoint) for name, several in endpoints.items() if len(several) > 1 for endpoint in several]
        self._endpoints = {pair: place for place, pair in enumerate(pairs)}
        self._failed_endpoints = shared_integers(workers * len(self._endpoints))

    def add(self, worker: int, index: int, count: int) -> None:
        self._numbers[worker * len(_COUNTER_INDEX) + index] += count

    def set_service(self, worker: int, index: int, state: int) -> None:
        self._services[worker * len(_SERVICES) + index] = state

    def observe(self, worker: int, number: int, event: Event) -> None:
        """Add the event to the histogram with this number."""
        kind = _HISTOGRAMS[number]
        value = kind.value(event)
        if value is not None:
            histogram = self._histograms[number]
            histogram.observe(histogram.place(worker, [getattr(event, label) for label in kind.labels]), value)

    def answer_repeater(self, worker: int, event: RequestAnswered) -> Callable[[float], None]:
        """A function that observes the event again, with the given seconds. It is part of every response from the
        response cache, so all that does not change is computed here.
        """
        seconds, sizes = self._histograms[:2]
        labels = (event.route, event.result, event.upstream)
        place, size, bucket = seconds.place(worker, labels), event.size, bisect_left(sizes.bounds, event.size)
        observe, add = seconds.observe, sizes.add

        def repeat(elapsed: float) -> None:
            observe(place, elapsed)
            add(place, size, bucket)

        return repeat

    def set_state(self, worker: int, state: WorkerState) -> None:
        for place, (_, _, value_of) in enumerate(_STATE, worker * len(_STATE)):
            self._states[place] = value_of(state)
        requests = dict.fromkeys(self._upstreams, 0)
        for upstream, number in state.upstream_requests.items():
            requests[upstream if upstream in requests else OTHER] += number
        for place, number in enumerate(requests.values(), worker * len(self._upstreams)):
            self._upstream_requests[place] = number

    def set_cache(self, measured: CacheMeasured) -> None:
        for place, (_, _, value_of) in enumerate(_CACHE):
            self._cache[place] = value_of(measured)

    def set_cache_by_upstream(self, stored: Mapping[str, Stored]) -> None:
        for start, (_, _, value_of) in enumerate(_CACHE_BY_UPSTREAM):
            values = dict.fromkeys(self._upstreams, 0)
            for upstream, content in stored.items():
                values[upstream if upstream in values else OTHER] += value_of(content)
            for place, value in enumerate(values.values()):
                self._cache_by_upstream[start * len(values) + place] = value

    def set_pins(self, measured: PinsMeasured) -> None:
        for place, (_, _, value_of) in enumerate(_PINS):
            self._pins[place] = value_of(measured)

    def set_endpoint(self, worker: int, upstream: str, endpoint: str, *, failed: bool) -> None:
        if (place := self._endpoints.get((upstream, endpoint))) is not None:
            self._failed_endpoints[worker * len(self._endpoints) + place] = failed

    def forget_endpoints(self, worker: int) -> None:
        start = worker * len(self._endpoints)
        for place in range(start, start + len(self._endpoints)):
            self._failed_endpoints[place] = 0

    def totals(self) -> Totals:
        """What all workers have done since the start of the service, for the history."""
        results, latencies = Counter[str](), [[0] * (len(DURATION_BOUNDS) + 1)]
        for (route, result, _), count in self._histogram("request_seconds").counts():
            if route in _ROUTES_WITH_FAULTS:
                results[result] += count
        for name, timed in (("request_seconds", "manifest"), ("first_byte_seconds", "blob")):
            succeeded = _labelled({timed}, _SUCCESSES)
            latencies += [_in_each(below, count) for _, below, count, _ in self._histogram(name).read(succeeded)]
        from_cache = _labelled(_CONTENT_ROUTES, _FROM_CACHE)
        saved = sum(int(size) for _, _, _, size in self._histogram("response_bytes").read(from_cache))
        return Totals(
            hits=self._total(_HITS),
            misses=self._total(_MISSES),
            bytes_in=self._total(_COUNTER_OF_EVENT[BytesFetched]),
            bytes_out=self._total(_COUNTER_OF_EVENT[BytesDelivered]),
            bytes_saved=saved,
            upstream_faults=results["upstream_fault"],
            mirror_faults=results["mirror_fault"],
            refused=results["refused"],
            client_left=results["client_left"],
            latencies=tuple(map(sum, zip(*latencies, strict=True))),
        )

    def _total(self, counter: _Counter) -> int:
        """The sum over all time series and workers."""
        places = (_COUNTER_INDEX[counter.name, values] for values in counter.series())
        return sum(sum(self._numbers[place :: len(_COUNTER_INDEX)]) for place in places)

    def _histogram(self, name: str) -> SharedHistogram:
        return self._histograms[_HISTOGRAM_INDEX[name]]

    def traffic(self) -> Traffic:
        """The sums over all workers that the page shows."""
        counts = self._histogram("request_seconds").counts()
        requests = sum(count for (route, _, _), count in counts if route in REGISTRY_ROUTES)
        sent, fetched = (self._total(_COUNTER_OF_EVENT[event]) for event in (BytesDelivered, BytesFetched))
        return Traffic(requests, sent, fetched)

    def parts(self) -> Iterator[bytes]:
        """The metrics as text: the sums over all workers, the newest allowance of each upstream, and the states."""
        yield families_text(self._collect_counters())
        for kind, histogram in zip(_HISTOGRAMS, self._histograms, strict=True):
            yield from histogram_text(_PREFIX + kind.name, kind.meaning, tuple(kind.labels), histogram)
        yield families_text(chain(self._collect_states(), self._collect_upstreams(), [self._build()]))

    def _build(self) -> Metric:
        build = GaugeMetricFamily(
            _PREFIX + "build_info", "1, with the version of the service as a label", labels=("version",)
        )
        build.add_metric((self._version,), 1)
        return build

    def _collect_states(self) -> Iterator[Metric]:
        for place, (name, meaning, _) in enumerate(_SUMS):
            yield GaugeMetricFamily(_PREFIX + name, meaning, sum(self._states[place :: len(_STATE)]))
        for place, (name, meaning, _) in enumerate(_OF_WORKER, len(_SUMS)):
            gauge = GaugeMetricFamily(_PREFIX + name, meaning, labels=("worker",))
            for worker, value in enumerate(self._states[place :: len(_STATE)]):
                gauge.add_metric((str(worker),), value)
            yield gauge
        for place, (name, meaning, _) in enumerate(_CACHE):
            yield GaugeMetricFamily(_PREFIX + name, meaning, self._cache[place])
        for place, (name, meaning, _) in enumerate(_PINS):
            yield GaugeMetricFamily(_PREFIX + name, meaning, self._pins[place])

    def _collect_upstreams(self) -> Iterator[Metric]:
        requests = GaugeMetricFamily(
            _PREFIX + "upstream_requests_in_progress",
            "Requests to the upstream whose response has not ended",
            labels=("upstream",),
        )
        for url, place in self._upstreams.items():
            requests.add_metric((url,), sum(self._upstream_requests[place :: len(self._upstreams)]))
        yield requests
        for start, (name, meaning, _) in enumerate(_CACHE_BY_UPSTREAM):
            gauge = GaugeMetricFamily(_PREFIX + name, meaning, labels=("upstream",))
            for url, place in self._upstreams.items():
                gauge.add_metric((url,), self._cache_by_upstream[start * len(self._upstreams) + place])
            yield gauge
        available = GaugeMetricFamily(
            _PREFIX + "endpoint_available",
            "1 if all workers use this address of an upstream with several addresses, 0 if it has failed",
            labels=("upstream", "endpoint"),
        )
        for (url, endpoint), place in self._endpoints.items():
            available.add_metric((url, endpoint), not any(self._failed_endpoints[place :: len(self._endpoints)]))
        yield available

    def _collect_counters(self) -> Iterator[Metric]:
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


class CountingEventSink:
    """Implements EventSink, WorkerStates, CacheByUpstream, MetricsPage and TrafficCounts. `worker`: the number of the
    worker, from 0.
    """

    def __init__(self, counters: SharedCounters, worker: int) -> None:
        self._counters = counters
        self.worker = worker
        self.allowance_table = WorkerAllowanceTable(counters.allowances, worker)
        self.pulls = counters.pulls.ring(worker)
        self.history = counters.history
        self.activity = counters.activity.of(worker)
        self.jobs = counters.jobs

    def emit(self, event: Event) -> None:
        if type(event) in _SERVICE_EVENTS:
            self._note_service(type(event))
        for number in _HISTOGRAMS_OF_EVENT.get(type(event), ()):
            self._counters.observe(self.worker, number, event)
        match event:
            case CacheMeasured():
                self._counters.set_cache(event)
            case PinsMeasured():
                self._counters.set_pins(event)
            case EndpointFailed(upstream, endpoint) | EndpointRecovered(upstream, endpoint):
                failed = isinstance(event, EndpointFailed)
                self._counters.set_endpoint(self.worker, upstream, endpoint, failed=failed)
        if counted := self._counted(event):
            self._counters.add(self.worker, *counted)

    def repeater(self, events: Sequence[Event]) -> Callable[[float], None] | None:
        counted = [counted for event in events if (counted := self._counted(event))]
        answers = [
            self._counters.answer_repeater(self.worker, event) for event in events if isinstance(event, RequestAnswered)
        ]
        if not counted and not answers:
            return None
        add, worker = self._counters.add, self.worker

        def repeat(seconds: float) -> None:
            for index, count in counted:
                add(worker, index, count)
            for answer in answers:
                answer(seconds)

        return repeat

    @staticmethod
    def _counted(event: Event) -> tuple[int, int] | None:
        """The index of the counter of the event, and the number to add; None if the event has no counter."""
        counter = _COUNTER_OF_EVENT.get(type(event))
        if counter is None:
            return None
        if isinstance(event, ContentRequested):
            counter, values = _HITS if event.is_hit else _MISSES, (event.kind.value,)
        else:
            values = tuple(getattr(event, label) for label in counter.labels)
        # An event without the field `count` counts once.
        return _COUNTER_INDEX[counter.name, values], getattr(event, "count", 1)

    def report(self, state: WorkerState) -> None:
        self._counters.set_state(self.worker, state)

    def report_by_upstream(self, stored: Mapping[str, Stored]) -> None:
        self._counters.set_cache_by_upstream(stored)

    def forget_endpoints(self) -> None:
        """The worker has just started, or has new objects after a reload, which know of no failure."""
        self._counters.forget_endpoints(self.worker)

    def forget_services(self) -> None:
        """The mirror has no shared store and no shared index, or no longer."""
        for index in range(len(_SERVICES)):
            self._counters.set_service(self.worker, index, _UNUSED)

    def _note_service(self, event: type[Event]) -> None:
        for index, (_, _, available, lost) in enumerate(_SERVICES):
            if event is lost or event in available:
                self._counters.set_service(self.worker, index, _LOST if event is lost else _AVAILABLE)

    @property
    def media_type(self) -> str:
        return CONTENT_TYPE_LATEST

    def parts(self) -> Iterator[bytes]:
        return self._counters.parts()

    def traffic(self) -> Traffic:
        return self._counters.traffic()
