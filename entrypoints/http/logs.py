"""The form of the log: lines for people, or JSON for machines. To standard error, as services do."""

import logging

from pythonjsonlogger.json import JsonFormatter

from entrypoints.settings import Settings

_TEXT = "%(asctime)s %(levelname)s %(message)s"


def configure_logging(settings: Settings) -> None:
    """Called once in every process."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        formatter: logging.Formatter = JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level"},
        )
    else:
        formatter = logging.Formatter(_TEXT)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("docker_image_proxy").setLevel(settings.log_level.upper())
