"""The ports to what operators see: events, metrics, the allowances at upstreams, and the access log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from application.ports.index import Stored
from application.ports.pull_log import ManifestPull
from domain.allowance import Allowance
from domain.events import Event
from domain.upstreams import Upstream
from domain.value import Value


class EventSink(Protocol):
    """Receives events. Never raises and never waits."""

    def emit(self, event: Event) -> None: ...

    def repeater(self, events: Sequence[Event]) -> Callable[[float], None] | None:
        """A function that emits these events again, RequestAnswered with the given seconds. It costs less than `emit`,
        for a response that is repeated thousands of times a second. None if the sink ignores these events.
        """


@dataclass(frozen=True)
class WorkerState:
    """What a worker process is doing. `downloads`: running downloads of blobs; `readers`: requests that read from them;
    `requests`: requests of clients that are being answered; `connections`: connections of clients;
    `upstream_requests`: requests to each upstream whose response has not ended, by the URL of the upstream;
    `loop_lag_seconds`: the longest delay of the event loop in the last seconds; `open_files`: file descriptors in use,
    and `max_open_files`: their limit.
    """

    downloads: int = 0
    readers: int = 0
    requests: int = 0
    connections: int = 0
    upstream_requests: Mapping[str, int] = field(default_factory=dict)
    loop_lag_seconds: float = 0.0
    open_files: int = 0
    max_open_files: float = 0


class WorkerStates(Protocol):
    """The states of all workers, for the metrics."""

    def report(self, state: WorkerState) -> None:
        """Replace the last state of this worker."""


class CacheByUpstream(Protocol):
    """How much of the cache each upstream has sent, for the metrics."""

    def report_by_upstream(self, stored: Mapping[str, Stored]) -> None:
        """Replace the last report of any worker. `stored`: by the URL of the upstream; one that is missing has sent
        nothing.
        """


class MetricsPage(Protocol):
    """The metrics, summed over all workers."""

    @property
    def media_type(self) -> str: ...

    def parts(self) -> Iterator[bytes]:
        """The page in parts. Each takes a few milliseconds to make, so that the caller can serve others in between."""


class Traffic(Value, frozen=True):
    """Sums over all workers since the start. `requests`: answered requests of registry clients, without those for the
    page and for operators; `sent`: bytes of manifests and blobs that were sent to clients; `fetched`: bytes that were
    received from upstreams.
    """

    requests: int
    sent: int
    fetched: int


class TrafficCounts(Protocol):
    """The counters of the metrics, as far as the page needs them."""

    def traffic(self) -> Traffic: ...


class AllowanceTable(Protocol):
    """The allowances that operators see: those of the mirror's own login and of anonymous requests. The allowances of
    callers are private.
    """

    def publish(self, upstream: Upstream, allowance: Allowance) -> None:
        """Store the allowance that the upstream has just sent to this worker."""

    def newest(self, upstream: Upstream) -> Allowance | None:
        """The newest allowance that any worker has published; None if there is none."""


@dataclass
class RequestRecord:
    """What the access log and the metrics report of a request. `request_id`: the id by which the request can be found
    in the log, "" outside of a request. `account`: the name of the checked account;
    `account_stamp`: its stamp at the time of the check, "" if it is not known; `upstream`: the URL of the upstream that
    the request concerns, "" if it is not known; `upstream_status`: the last HTTP status of the upstream; `result`: how
    a manifest or a blob was found (domain/events.py, RESULTS), "" for other requests; `client`: the address of the
    client, empty for requests of the mirror itself. In the queue of an upstream, clients with different addresses take
    turns. `pull`: the manifest that the caller got, for the page.
    """

    account: str | None = None
    account_stamp: str = ""
    request_id: str = ""
    upstream: str = ""
    upstream_status: int | None = None
    result: str = ""
    client: str = ""
    pull: ManifestPull | None = None

    def passed(self, account: str, stamp: str) -> None:
        """Record the account whose login or token was accepted; "" for the anonymous caller."""
        self.account, self.account_stamp = account or None, stamp


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def begin_record(request_id: str = "") -> RequestRecord:
    """Start a new record for the request that the current task serves."""
    record = RequestRecord(request_id=request_id)
    _current.set(record)
    return record


def current_record() -> RequestRecord:
    """The record of the current request; outside of a request, a new record that is not logged."""
    return _current.get() or RequestRecord()
