"""What one client's request leaves behind for the access log, gathered where each fact is known."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class RequestRecord:
    """`account` is the name of the account that was checked, `account_stamp` its stamp at that check, "" where it is
    not known; `upstream_status` the last HTTP status from there.
    """

    account: str | None = None
    account_stamp: str = ""
    upstream_status: int | None = None
    client: str = ""
    """The address of whoever asked, empty where that is the mirror itself. Upstreams are asked in turns by it."""

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
    """The record of the request being served; outside of one, a record that nobody reads."""
    return _current.get() or RequestRecord()
