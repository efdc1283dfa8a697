"""The machine's clock."""

import time


class SystemClock:
    """Implements Clock."""

    def now(self) -> float:
        return time.time()

    def processor_seconds(self) -> float:
        return time.process_time()
