"""The port to whoever wants to know what happened."""

from typing import Protocol

from domain.events import Event


class EventSink(Protocol):
    """Takes events; never raises and never waits."""

    def emit(self, event: Event) -> None: ...
