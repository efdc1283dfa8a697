"""The machine's clock."""

import time


class SystemClock:
    """Implements Clock."""

    def now(self) -> float:
        return time.time()
