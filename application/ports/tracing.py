"""The port to traces: the spans of what the mirror does for a request."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Protocol

from domain.trace_context import TraceContext
from domain.value import Value

Attributes = Mapping[str, str | int | float | bool]
"""By name. Names follow OpenTelemetry's semantic conventions; the mirror's own ones begin with `mirror.`."""


class SpanKind(Enum):
    """SERVER: a request of a client. CLIENT: a request to another system. INTERNAL: work of the mirror itself."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class TraceSpan(Protocol):
    """A step of a trace, with its duration. No method raises or waits."""

    @property
    def ids(self) -> tuple[str, str] | None:
        """The ids of the trace and of the span, in hexadecimal, for the log; None if the mirror makes no traces."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The fields of a request that continues the trace after this span."""

    def child(self, name: str, kind: SpanKind, attributes: Attributes) -> "TraceSpan":
        """Begin a span in the same trace, which this span has caused."""

    def link(self, other: "TraceSpan") -> None:
        """Note that this span has to do with another one, which may be in another trace."""

    def rename(self, name: str) -> None:
        """Replace the name, when more is known than at the beginning."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes, or replace them."""

    def fail(self, reason: str) -> None:
        """Mark the span as failed. `reason`: one of few words, such as a status or the class of an error."""

    def end(self) -> None:
        """The step ends now. Called once."""


class Tracer(Protocol):
    """Begins traces, or continues those of clients."""

    def begin(self, given: TraceContext | None) -> TraceSpan:
        """The span of a request of a client, whose name is set at its end. `given`: the trace in which the client sent
        it; None if it named none.
        """


class UntracedSpan(Value, frozen=True):
    """Implements TraceSpan for work of which no span is recorded. `given`: the trace of the client, which is passed on
    unchanged.
    """

    given: TraceContext | None = None

    @property
    def ids(self) -> tuple[str, str] | None:
        return None

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self.given.headers if self.given else ()

    def child(self, name: str, kind: SpanKind, attributes: Attributes) -> "UntracedSpan":  # noqa: ARG002 - as TraceSpan
        return self

    def link(self, other: TraceSpan) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def set(self, attributes: Attributes) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def end(self) -> None:
        pass


class NoTracer:
    """Implements Tracer for a mirror that makes no traces."""

    def begin(self, given: TraceContext | None) -> TraceSpan:
        return UntracedSpan(given) if given else NO_SPAN


NO_SPAN = UntracedSpan()
_current: ContextVar[TraceSpan] = ContextVar("span", default=NO_SPAN)


def current_span() -> TraceSpan:
    """The span of the request or download that the current task works for; NO_SPAN for work that no request waits
    for, such as the maintenance of the cache.
    """
    return _current.get()


def work_for(span: TraceSpan) -> None:
    """From now on, the current task and the tasks that it starts work for this span."""
    _current.set(span)


@contextmanager
def traced(name: str, kind: SpanKind, attributes: Attributes) -> Iterator[TraceSpan]:
    """A span below the current one, from the beginning to the end of the context. It has failed if the context raises.
    The current span stays the same.
    """
    span = current_span().child(name, kind, attributes)
    try:
        yield span
    except BaseException as error:
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()
