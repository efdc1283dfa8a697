"""Log output: lines of text or JSON objects, written to standard error."""

import asyncio
import logging
from contextlib import nullcontext, suppress
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from application.ports.telemetry import current_record
from application.ports.tracing import current_span
from entrypoints.settings import Settings

_SUFFIX = "request_suffix"


class TextFormatter(logging.Formatter):
    """Formats date and time once a second; only the milliseconds are formatted for each line."""

    _second = -1
    _formatted = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        second = int(record.created)
        if second != self._second or datefmt:
            self._second, self._formatted = second, super().formatTime(record, datefmt or self.default_time_format)
        return f"{self._formatted},{int(record.msecs):03d}"


class BatchingHandler(logging.StreamHandler[TextIO]):
    """Writes all lines of one iteration of the event loop with one system call: one call per line would cost more than
    some requests do. Lines of level WARNING or higher, and lines outside of an event loop, are written immediately.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            loop = asyncio.get_running_loop() if record.levelno < logging.WARNING else None
        except RuntimeError:
            loop = None
        except Exception:  # noqa: BLE001 - like every handler: a line that cannot be formatted must not stop the caller
            self.handleError(record)
            return
        if loop is None:
            self.flush()
        elif len(self._lines) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the lines. Also called when the process ends."""
        # If the log cannot be written (a full disk, for instance), requests are still served.
        with self.lock or nullcontext(), suppress(OSError, ValueError):
            if self._lines:
                text, self._lines = "".join(self._lines), []
                self.stream.write(text)
            super().flush()


class RequestIdFilter(logging.Filter):
    """Adds the ids of the request that the current task serves, of its trace and of its span to each line, also to
    lines of downloads that it has started. The access log has them already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id") and (request_id := current_record().request_id):
            record.request_id = request_id
            record.request_suffix = f" request={request_id}"
            if ids := current_span().ids:
                record.trace_id, record.span_id = ids
        return True


def formatter_of(log_format: str) -> logging.Formatter:
    """The formatter for LOG_FORMAT."""
    if log_format == "json":
        fields, names = "%(asctime)s %(levelname)s %(name)s %(message)s", {"asctime": "time", "levelname": "level"}
        return JsonFormatter(fields, rename_fields=names, reserved_attrs=[*RESERVED_ATTRS, _SUFFIX])
    line = "%(asctime)s %(levelname)s %(message)s%(request_suffix)s"
    return TextFormatter(line, defaults={_SUFFIX: ""})


def configure_logging(settings: Settings) -> None:
    """Called before the workers are forked, which inherit the configuration, and in every process after a reload."""
    handler = BatchingHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(formatter_of(settings.log_format))
    # Values that neither format shows (documentation of logging, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("docker_image_proxy").setLevel(settings.log_level.upper())
