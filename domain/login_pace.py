"""How long attempts to log in wait after wrong ones."""

from domain.value import Value

COUNTED_SECONDS = 300.0
"""A wrong attempt counts for this time."""
MOST_COUNTED = 40


class Pace(Value, frozen=True):
    """How long an attempt waits. The first `free` wrong attempts cause no wait. The next one causes `first` seconds;
    each further one doubles the wait, up to `longest` seconds. `is_strict`: attempts that are still running count as
    wrong.
    """

    free: int
    first: float
    longest: float
    is_strict: bool

    def seconds(self, wrong: int) -> float:
        """The wait after this number of wrong attempts."""
        return min(self.first * 2.0 ** (wrong - self.free), self.longest) if wrong >= self.free else 0.0
