"""The ports to what operators see: events, metrics, allowances of upstreams, and the access log."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from domain.allowance import Allowance
from domain.events import Event
from domain.upstreams import Upstream


class EventSink(Protocol):
    """Takes events; never raises and never waits."""

    def emit(self, event: Event) -> None: ...


class MetricsPage(Protocol):
    """The sums over all workers."""

    def render(self) -> tuple[bytes, str]:
        """The page, and its media type."""
        ...


class AllowanceTable(Protocol):
    """What operators see of the allowances at upstreams: those of the mirror's own login and of anonymous requests, not
    those of callers.
    """

    def publish(self, upstream: Upstream, allowance: Allowance) -> None:
        """The upstream sent this allowance to this worker."""
        ...

    def newest(self, upstream: Upstream) -> Allowance | None:
        """The newest that any worker has shown; None where the upstream never sent one."""
        ...


@dataclass
class RequestRecord:
    """`account` is the name of the account that was checked, `account_stamp` its stamp at that check, "" where it is
    not known; `upstream_status` the last HTTP status from there.
    """

    account: str | None = None
    account_stamp: str = ""
    upstream_status: int | None = None
    client: str = ""
    """The address of the client, empty for requests of the mirror itself. Clients take turns at an upstream by it."""

    def passed(self, account: str, stamp: str) -> None:
        """The account whose login or token was accepted; "" for the anonymous caller."""
        self.account, self.account_stamp = account or None, stamp


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def begin_record() -> RequestRecord:
    """A fresh record for the request that the current task serves."""
    record = RequestRecord()
    _current.set(record)
    return record


def current_record() -> RequestRecord:
    """The record of the request being served; outside of one, a new record that is not logged."""
    return _current.get() or RequestRecord()
