"""Events, written to the log."""

import logging

from domain.documents import one_line
from domain.events import Event, StanceLearnt, UpstreamFailed, UpstreamSharesOurName, WrongContent

_LOG = logging.getLogger("docker_image_proxy")


class LoggingEventSink:
    """Plays the EventSink."""

    def emit(self, event: Event) -> None:
        match event:
            case StanceLearnt(upstream, row, meaning, is_change):
                # The first is in the line that the service starts with.
                level = logging.WARNING if is_change else logging.DEBUG
                _LOG.log(level, "%s: trust row %d: %s", upstream, row, meaning)
            case UpstreamSharesOurName(upstream, service):
                _LOG.warning(
                    "%s calls its service %r, as this mirror does, so its tokens look like ours: "
                    "give this mirror another SELF_AUTH_SERVICE",
                    upstream,
                    one_line(service),
                )
            case UpstreamFailed(upstream, reason):
                _LOG.warning("%s: %s", upstream, one_line(reason))
            case WrongContent(upstream, repository, digest):
                _LOG.error("%s: wrong content for %s in %s; not delivered", upstream, digest, repository)
