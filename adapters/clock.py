"""The machine's clock."""

import time


class SystemClock:
    """Plays the Clock."""

    def now(self) -> float:
        return time.time()
