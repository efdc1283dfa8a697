"""RateMeter: how fast numbers grow."""

from collections import deque

_SHORTEST_SECONDS = 0.4
"""Between two looks of which the difference says something."""
_SPAN_SECONDS = 5.0
_LONGEST_SECONDS = 15.0


class RateMeter:
    """Compares numbers that only grow with what they were some seconds ago."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, tuple[int, ...]]] = deque()

    def look(self, now: float, *numbers: int) -> tuple[float, ...] | None:
        """The growth of each number per second, during the last five seconds if there was a look then. None if the last
        look was more than 15 seconds ago, or there was none. `now`: seconds on a clock that is never set back.
        """
        looks = self._looks
        while looks and now - looks[0][0] > _LONGEST_SECONDS:
            looks.popleft()
        while len(looks) > 1 and now - looks[1][0] >= _SPAN_SECONDS:
            looks.popleft()
        rates = None
        if looks and (seconds := now - looks[0][0]) >= _SHORTEST_SECONDS:
            rates = tuple((number - before) / seconds for number, before in zip(numbers, looks[0][1], strict=True))
        if not looks or now - looks[-1][0] >= _SHORTEST_SECONDS:
            looks.append((now, numbers))
        return rates
