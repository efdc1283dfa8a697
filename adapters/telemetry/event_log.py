"""Events, written to the log, counted, or both."""

import logging
from collections.abc import Sequence

from application.ports.telemetry import EventSink
from domain.documents import one_line
from domain.events import (
    AccountEvent,
    AccountsReloaded,
    AccountsUnreadable,
    BackOffStarted,
    CacheFull,
    CacheWriteFailed,
    ContentDamaged,
    ContentEvicted,
    DigestMismatch,
    DownloadResumed,
    EndpointEvent,
    EndpointFailed,
    EndpointRecovered,
    Event,
    LoginDelayed,
    LoginRejected,
    PullDenied,
    ServiceNameConflict,
    StaleServed,
    UpkeepFailed,
    UpstreamAuthLearned,
    UpstreamFailed,
)

_LOG = logging.getLogger("docker_image_proxy")


class LoggingEventSink:
    """Implements the EventSink."""

    def emit(self, event: Event) -> None:
        match event:
            case UpstreamAuthLearned(upstream, row, meaning, is_change):
                # The first is in the line that the service starts with.
                level = logging.WARNING if is_change else logging.DEBUG
                _LOG.log(level, "%s: trust row %d: %s", upstream, row, meaning)
            case ServiceNameConflict(upstream, service):
                _LOG.warning(
                    "%s calls its service %r, as this mirror does, so its tokens look like ours: "
                    "give this mirror another SELF_AUTH_SERVICE",
                    upstream,
                    one_line(service),
                )
            case UpstreamFailed(upstream, reason):
                _LOG.warning("%s: %s", upstream, one_line(reason))
            case EndpointFailed() | EndpointRecovered():
                _log_endpoint(event)
            case DigestMismatch(upstream, repository, digest):
                _LOG.error("%s: wrong content for %s in %s; not delivered", upstream, digest, repository)
            case PullDenied(account, upstream, repository):
                who = f"the account {one_line(account)!r}" if account else "somebody without an account"
                _LOG.info("%s: the rules keep %s from %s", upstream, who, repository)
            case AccountsReloaded() | AccountsUnreadable() | LoginDelayed() | LoginRejected():
                _log_accounts(event)
            case _:
                _log_cache(event)


def _log_endpoint(event: EndpointEvent) -> None:
    match event:
        case EndpointFailed(upstream, endpoint, reason):
            _LOG.warning("%s: goes on without %s for a while: %s", upstream, endpoint, one_line(reason))
        case EndpointRecovered(upstream, endpoint):
            _LOG.warning("%s: %s answers again", upstream, endpoint)


def _log_accounts(event: AccountEvent) -> None:
    match event:
        case AccountsReloaded(count):
            _LOG.info("HTPASSWD_FILE was read again: %d accounts", count)
        case AccountsUnreadable(reason):
            _LOG.error("HTPASSWD_FILE: %s; the accounts stay as they were", one_line(reason))
        case LoginDelayed(account, address, seconds):
            _LOG.info("a login of account %s from %s waits %d s, after wrong ones", *_who(account, address), seconds)
        case LoginRejected(account, address, seconds):
            message = "a login of account %s from %s is refused for %d s, after too many wrong ones"
            _LOG.info(message, *_who(account, address), seconds)


def _who(account: str, address: str) -> tuple[str, str]:
    return one_line(account) or "(unknown)", one_line(address)


def _log_cache(event: Event) -> None:  # noqa: C901 - one case for each event, and nothing else
    match event:
        case DownloadResumed(upstream, digest, reason):
            _LOG.warning("%s: %s broke off and is gone on with: %s", upstream, digest, one_line(reason))
        case BackOffStarted(upstream, seconds, reason):
            _LOG.warning("%s: asked less for %d seconds: %s", upstream, seconds, one_line(reason))
        case StaleServed(upstream, reason):
            _LOG.debug("%s: answered from the cache, unchecked: %s", upstream, one_line(reason))
        case ContentEvicted(count, size):
            _LOG.info("the cache made room: %d pieces of content, %d bytes", count, size)
        case ContentDamaged(digest):
            _LOG.error("%s was damaged in the cache; it is fetched again", digest)
        case UpkeepFailed(reason):
            _LOG.error("the cache's upkeep failed: %s", one_line(reason))
        case CacheWriteFailed(digest, reason):
            _LOG.error("the cache cannot be used, and %s is delivered uncached: %s", digest, one_line(reason))
        case CacheFull(digest):
            _LOG.warning("the cache is full; %s is delivered uncached", digest)


class EventFanOut:
    """Implements EventSink: passes each event on to several sinks."""

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self._sinks = sinks

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink.emit(event)
