"""The ports to what operators see: events, metrics, the allowances at upstreams, and the access log."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from domain.allowance import Allowance
from domain.events import Event
from domain.upstreams import Upstream


class EventSink(Protocol):
    """Receives events. Never raises and never waits."""

    def emit(self, event: Event) -> None: ...


class MetricsPage(Protocol):
    """The metrics, summed over all workers."""

    def render(self) -> tuple[bytes, str]:
        """The page and its media type."""


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
    """What the access log reports of a request. `account`: the name of the checked account; `account_stamp`: its stamp
    at the time of the check, "" if it is not known; `upstream_status`: the last HTTP status of the upstream; `client`:
    the address of the client, empty for requests of the mirror itself. In the queue of an upstream, clients with
    different addresses take turns.
    """

    account: str | None = None
    account_stamp: str = ""
    upstream_status: int | None = None
    client: str = ""

    def passed(self, account: str, stamp: str) -> None:
        """Record the account whose login or token was accepted; "" for the anonymous caller."""
        self.account, self.account_stamp = account or None, stamp


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def begin_record() -> RequestRecord:
    """Start a new record for the request that the current task serves."""
    record = RequestRecord()
    _current.set(record)
    return record


def current_record() -> RequestRecord:
    """The record of the current request; outside of a request, a new record that is not logged."""
    return _current.get() or RequestRecord()
