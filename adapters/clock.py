"""The machine's clock."""

import time


class SystemClock:
    """Implements Clock."""

    def now(self) -> float:
        return time.time()

    def midnight(self) -> float:
        today = time.localtime()
        return time.mktime((today.tm_year, today.tm_mon, today.tm_mday, 0, 0, 0, 0, 0, -1))
