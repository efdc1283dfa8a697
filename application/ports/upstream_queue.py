"""What work and the queue before an upstream tell each other, gathered where each fact is known.

An upstream may have bounds (requests under way, requests a second). What exceeds them waits in a queue of the adapter.
The time in it is the mirror's own: it is no silence of the upstream. And who waits may leave.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class QueueWatch:
    """One piece of work, which may have requests in the queue. Other pieces of work that wait for it follow it."""

    def __init__(self, is_wanted: Callable[[], bool] | None = None) -> None:
        """`is_wanted`: whether somebody still waits for the work. Without it, who waits ends the work by leaving."""
        self._is_wanted = is_wanted
        self._queued = 0
        self._followers: list[QueueWatch] = []

    @property
    def is_wanted(self) -> bool:
        """A request of the work is taken out of the queue when this has become False."""
        return self._is_wanted is None or self._is_wanted()

    @contextmanager
    def queued(self) -> Iterator[None]:
        """While one of its requests is in the queue."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def followed_by(self, other: "QueueWatch") -> Iterator[None]:
        """While the other work waits for this one: what is in the queue for this one is so for both."""
        self._followers.append(other)
        if self._queued:
            other.enter()
        try:
            yield
        finally:
            self._followers.remove(other)
            if self._queued:
                other.leave()

    def paused(self) -> None:
        """Called when the first request enters the queue."""

    def resumed(self) -> None:
        """Called when no request is in it any more."""

    def enter(self) -> None:
        """A request of this work, or of work that it waits for, has entered the queue."""
        self._queued += 1
        if self._queued == 1:
            self.paused()
            for follower in self._followers:
                follower.enter()

    def leave(self) -> None:
        """It is not in the queue any more."""
        self._queued -= 1
        if not self._queued:
            self.resumed()
            for follower in self._followers:
                follower.leave()


class SharedWork(QueueWatch):
    """Work that outlives whoever began it, for as long as somebody else wants it."""

    def __init__(self) -> None:
        super().__init__(lambda: any(follower.is_wanted for follower in self._followers))


_current: ContextVar[QueueWatch | None] = ContextVar("queue_watch", default=None)


def current_watch() -> QueueWatch:
    """The watch of the work that the current task does; where nobody watches, one that nobody looks at."""
    return _current.get() or QueueWatch()


@contextmanager
def watched_by(watch: QueueWatch) -> Iterator[None]:
    """What the current task does, and the tasks that it begins, are this work."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
