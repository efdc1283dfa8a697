"""The form of the log: lines for people, or JSON for machines. To standard error, as services do."""

import asyncio
import logging
from contextlib import nullcontext, suppress
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from entrypoints.settings import Settings

_TEXT = "%(asctime)s %(levelname)s %(message)s"


class TextFormatter(logging.Formatter):
    """Prints the date and the time once a second, and the milliseconds each time."""

    _second = -1
    _printed = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        second = int(record.created)
        if second != self._second or datefmt:
            self._second, self._printed = second, super().formatTime(record, datefmt or self.default_time_format)
        return f"{self._printed},{int(record.msecs):03d}"


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes all lines of one turn of the event loop at once: one call of the system for each would cost more than
    some requests do. Outside of a loop, and from WARNING on, at once.
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
        except Exception:  # noqa: BLE001 - as every handler does: a line that cannot be formed stops nothing
            self.handleError(record)
            return
        if loop is None:
            self.flush()
        elif len(self._lines) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Also called when the process ends."""
        with self.lock or nullcontext():
            if self._lines:
                text, self._lines = "".join(self._lines), []
                # A log that cannot be written, on a full disk say, stops nobody's work.
                with suppress(OSError, ValueError):
                    self.stream.write(text)
            with suppress(OSError, ValueError):
                super().flush()


def reconfigure_logging(before: Settings, settings: Settings) -> None:
    """Called in every process where the settings are others now."""
    if (before.log_format, before.log_level) != (settings.log_format, settings.log_level):
        configure_logging(settings)


def configure_logging(settings: Settings) -> None:
    """Called before the workers are forked, which have it from there."""
    handler = GatheringHandler()
    if settings.log_format == "json":
        formatter: logging.Formatter = JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level"},
        )
    else:
        formatter = TextFormatter(_TEXT)
    handler.setFormatter(formatter)
    # What logging's own documentation ("Optimization") offers to leave out: no form of ours shows any of it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("docker_image_proxy").setLevel(settings.log_level.upper())
