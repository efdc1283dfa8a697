"""An event sink that stores its events."""

from collections.abc import Callable, Sequence

from domain.events import Event


class RecordingEventSink:
    """Implements the EventSink."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def repeater(self, events: Sequence[Event]) -> Callable[[float], None]:
        return lambda _: self.events.extend(events)
