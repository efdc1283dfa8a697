"""Writes events to the log."""

import logging
from collections.abc import Callable, Sequence
from logging import DEBUG, ERROR, INFO, WARNING

from application.ports.telemetry import EventSink
from domain.documents import one_line
from domain.events import (
    AccountsReloaded,
    AccountsUnreadable,
    BackOffStarted,
    CacheFull,
    CacheWriteFailed,
    ContentDamaged,
    ContentEvicted,
    DigestMismatch,
    DownloadResumed,
    EndpointFailed,
    EndpointRecovered,
    Event,
    LoginDelayed,
    LoginRejected,
    OperatorActed,
    PinCheckFailed,
    PinMoved,
    PinsTooLarge,
    PullDenied,
    ServiceNameConflict,
    SharedContentEvicted,
    SharedIndexLost,
    SharedIndexRecovered,
    SharedStoreLost,
    SharedStoreRecovered,
    StaleServed,
    UpkeepFailed,
    UpstreamAuthLearned,
    UpstreamFailed,
)
from domain.value import fields_of

_LOG = logging.getLogger("docker_image_proxy")

# The level and the text of each event that is logged. The text names fields of the event.
_MESSAGES: dict[type[Event], tuple[int, str]] = {
    UpstreamAuthLearned: (DEBUG, "%(upstream)s: trust row %(row)d: %(meaning)s"),
    ServiceNameConflict: (
        WARNING,
        (
            "%(upstream)s uses the service name %(service)r, as this mirror does, so the mirror cannot distinguish "
            "their tokens: set another SELF_AUTH_SERVICE for this mirror"
        ),
    ),
    UpstreamFailed: (WARNING, "%(upstream)s: %(reason)s"),
    EndpointFailed: (
        WARNING,
        "%(upstream)s: endpoint %(endpoint)s failed and is not used for a while: %(reason)s",
    ),
    EndpointRecovered: (WARNING, "%(upstream)s: endpoint %(endpoint)s answers again"),
    DigestMismatch: (
        ERROR,
        "%(upstream)s: content of %(digest)s in %(repository)s does not match its digest; not delivered",
    ),
    PullDenied: (INFO, "%(upstream)s: the access rules deny %(repository)s to %(caller)s"),
    AccountsReloaded: (INFO, "HTPASSWD_FILE: reloaded, %(count)d accounts"),
    AccountsUnreadable: (ERROR, "HTPASSWD_FILE: %(reason)s; the previous accounts stay in force"),
    LoginDelayed: (
        INFO,
        "login of account %(account)s from %(address)s delayed by %(seconds)d s after wrong passwords",
    ),
    LoginRejected: (
        INFO,
        "login of account %(account)s from %(address)s refused for %(seconds)d s after too many wrong passwords",
    ),
    DownloadResumed: (
        WARNING,
        "%(upstream)s: download of %(digest)s was interrupted, resuming: %(reason)s",
    ),
    BackOffStarted: (
        WARNING,
        "%(upstream)s: sending fewer requests for %(seconds)d seconds: %(reason)s",
    ),
    StaleServed: (
        DEBUG,
        "%(upstream)s: answered from the cache without asking the upstream: %(reason)s",
    ),
    SharedContentEvicted: (INFO, "removed %(count)d objects from the shared store, %(size)d bytes"),
    ContentEvicted: (INFO, "evicted %(count)d manifests and blobs from the cache, %(size)d bytes"),
    ContentDamaged: (ERROR, "%(digest)s was damaged in the cache; it is downloaded again"),
    UpkeepFailed: (ERROR, "maintenance of the cache failed: %(reason)s"),
    CacheWriteFailed: (ERROR, "the cache cannot be used; delivering %(digest)s uncached: %(reason)s"),
    CacheFull: (WARNING, "the cache is full; delivering %(digest)s uncached"),
    SharedIndexLost: (WARNING, "SHARED_INDEX: %(reason)s; this worker does without it for a while"),
    SharedIndexRecovered: (WARNING, "SHARED_INDEX: %(address)s answers again"),
    SharedStoreLost: (WARNING, "SHARED_STORE: %(reason)s; this worker does without it for a while"),
    SharedStoreRecovered: (WARNING, "SHARED_STORE: %(address)s answers again"),
    PinsTooLarge: (
        WARNING,
        (
            "the pinned images have %(size)d bytes, but the cache may have only %(limit)d: nothing pinned is removed, "
            "and what does not fit is not fetched; raise CACHE_SIZE or unpin images"
        ),
    ),
    PinCheckFailed: (WARNING, "%(upstream)s: the pinned image %(image)s cannot be checked: %(reason)s"),
    PinMoved: (INFO, "%(upstream)s: the pinned image %(image)s is %(digest)s now"),
    OperatorActed: (INFO, "operator %(operator)s from %(address)s: %(action)s %(subject)s: %(result)s"),
}


class LoggingEventSink:
    """Implements EventSink."""

    def emit(self, event: Event) -> None:
        if type(event) not in _MESSAGES:
            return
        level, text = _MESSAGES[type(event)]
        fields = fields_of(event)
        values = {name: one_line(value) if isinstance(value, str) else value for name, value in fields.items()}
        match event:
            case UpstreamAuthLearned(is_change=True):
                level = WARNING  # the start line contains the first one
            case PullDenied(account):
                values["caller"] = f"account {one_line(account)!r}" if account else "an anonymous caller"
            case LoginDelayed(account="") | LoginRejected(account=""):
                values["account"] = "(unknown)"
        # For JSON lines, which have the fields of the event beside the text.
        _LOG.log(level, text, values, extra={"event": type(event).__name__, **values})

    def repeater(self, events: Sequence[Event]) -> Callable[[float], None] | None:
        logged = [event for event in events if type(event) in _MESSAGES]

        def repeat(_: float) -> None:
            for event in logged:
                self.emit(event)

        return repeat if logged else None


class EventFanOut:
    """Implements EventSink: passes each event on to several sinks."""

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self._sinks = sinks

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink.emit(event)

    def repeater(self, events: Sequence[Event]) -> Callable[[float], None] | None:
        repeaters = [one for sink in self._sinks if (one := sink.repeater(events))]
        if len(repeaters) <= 1:
            return next(iter(repeaters), None)

        def repeat(seconds: float) -> None:
            for one in repeaters:
                one(seconds)

        return repeat
