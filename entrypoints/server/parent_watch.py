"""ParentWatch: no process of the service outlives the main process, however that ends.

A main process that is killed by SIGKILL, by the kernel for want of memory say, tells nobody. Its children would keep
the listening socket, so that a restarted service could not bind its port. So all children have the reading end of a
pipe whose writing end only the main process has: the kernel closes it with the process, and each child reads the end
of the file at once. Linux's own means, PR_SET_PDEATHSIG of prctl(2), is bound to the thread that forked, and exists
on no other system.
"""

import os
import threading
import time
from collections.abc import Callable

_MARGIN_SECONDS = 5.0
"""Beyond the grace: for a stop that ends by itself."""
_STATUS = 1


class ParentWatch:
    """Made in the main process before it forks anything."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()  # neither is inherited by another program
        self._main = os.getpid()
        self._stop: Callable[[], float] | None = None

    def guard_forks(self) -> None:
        """Whatever this process forks from now on ends after it."""
        os.register_at_fork(after_in_child=self._begin)

    def release(self) -> None:
        """In the main process: have all children end as if it had ended."""
        os.close(self._write_end)

    def stop_by(self, stop: Callable[[], float]) -> None:
        """In a child: how it is to end. `stop` is called in another thread, and returns how many seconds that may take
        before the process is ended all the same. A child that names no way ends at once.
        """
        self._stop = stop

    @property
    def is_orphan(self) -> bool:
        """In a child: whether the main process is gone."""
        return os.getppid() != self._main

    def _begin(self) -> None:
        os.close(self._write_end)
        threading.Thread(target=self._wait, name="parent watch", daemon=True).start()

    def _wait(self) -> None:
        while os.read(self._read_end, 1):
            pass  # nothing is ever written
        if self._stop is not None:
            time.sleep(self._stop() + _MARGIN_SECONDS)
        os._exit(_STATUS)
