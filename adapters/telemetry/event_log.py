"""Writes events to the log."""

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
    """Implements EventSink."""

    def emit(self, event: Event) -> None:
        match event:
            case UpstreamAuthLearned(upstream, row, meaning, is_change):
                # The start line contains the first one.
                level = logging.WARNING if is_change else logging.DEBUG
                _LOG.log(level, "%s: trust row %d: %s", upstream, row, meaning)
            case ServiceNameConflict(upstream, service):
                _LOG.warning(
                    "%s uses the service name %r, as this mirror does, so the mirror cannot distinguish their tokens: "
                    "set another SELF_AUTH_SERVICE for this mirror",
                    upstream,
                    one_line(service),
                )
            case UpstreamFailed(upstream, reason):
                _LOG.warning("%s: %s", upstream, one_line(reason))
            case EndpointFailed() | EndpointRecovered():
                _log_endpoint(event)
            case DigestMismatch(upstream, repository, digest):
                _LOG.error(
                    "%s: content of %s in %s does not match its digest; not delivered", upstream, digest, repository
                )
            case PullDenied(account, upstream, repository):
                who = f"account {one_line(account)!r}" if account else "an anonymous caller"
                _LOG.info("%s: the access rules deny %s to %s", upstream, repository, who)
            case AccountsReloaded() | AccountsUnreadable() | LoginDelayed() | LoginRejected():
                _log_accounts(event)
            case _:
                _log_cache(event)


def _log_endpoint(event: EndpointEvent) -> None:
    match event:
        case EndpointFailed(upstream, endpoint, reason):
            _LOG.warning("%s: endpoint %s failed and is not used for a while: %s", upstream, endpoint, one_line(reason))
        case EndpointRecovered(upstream, endpoint):
            _LOG.warning("%s: endpoint %s answers again", upstream, endpoint)


def _log_accounts(event: AccountEvent) -> None:
    match event:
        case AccountsReloaded(count):
            _LOG.info("HTPASSWD_FILE: reloaded, %d accounts", count)
        case AccountsUnreadable(reason):
            _LOG.error("HTPASSWD_FILE: %s; the previous accounts stay in force", one_line(reason))
        case LoginDelayed(account, address, seconds):
            _LOG.info(
                "login of account %s from %s delayed by %d s after wrong passwords", *_who(account, address), seconds
            )
        case LoginRejected(account, address, seconds):
            message = "login of account %s from %s refused for %d s after too many wrong passwords"
            _LOG.info(message, *_who(account, address), seconds)


def _who(account: str, address: str) -> tuple[str, str]:
    return one_line(account) or "(unknown)", one_line(address)


def _log_cache(event: Event) -> None:  # noqa: C901 - one case for each event, and nothing else
    match event:
        case DownloadResumed(upstream, digest, reason):
            _LOG.warning("%s: download of %s was interrupted, resuming: %s", upstream, digest, one_line(reason))
        case BackOffStarted(upstream, seconds, reason):
            _LOG.warning("%s: sending fewer requests for %d seconds: %s", upstream, seconds, one_line(reason))
        case StaleServed(upstream, reason):
            _LOG.debug("%s: answered from the cache without asking the upstream: %s", upstream, one_line(reason))
        case ContentEvicted(count, size):
            _LOG.info("evicted %d manifests and blobs from the cache, %d bytes", count, size)
        case ContentDamaged(digest):
            _LOG.error("%s was damaged in the cache; it is downloaded again", digest)
        case UpkeepFailed(reason):
            _LOG.error("maintenance of the cache failed: %s", one_line(reason))
        case CacheWriteFailed(digest, reason):
            _LOG.error("the cache cannot be used; delivering %s uncached: %s", digest, one_line(reason))
        case CacheFull(digest):
            _LOG.warning("the cache is full; delivering %s uncached", digest)


class EventFanOut:
    """Implements EventSink: passes each event on to several sinks."""

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self._sinks = sinks

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink.emit(event)
