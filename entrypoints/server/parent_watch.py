"""ParentWatch: all processes of the service end when the main process ends, for whatever reason.

A main process that is killed by SIGKILL, for instance by the kernel when memory is short, cannot tell its children.
They would keep the listening socket, and a restarted service could not bind its port. So all children have the read end
of a pipe whose write end only the main process has: when the main process ends, the kernel closes the write end, and
each child reads the end of the file. Linux's own means, PR_SET_PDEATHSIG of prctl(2), depends on the thread that
forked, and exists on no other system.
"""

import os
import threading
import time
from collections.abc import Callable

_MARGIN_SECONDS = 5.0
"""Added to the time that the child needs, so that a child that is about to end by itself is not killed."""
_STATUS = 1


class ParentWatch:
    """Created in the main process before it forks anything."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()  # not inherited by other programs (PEP 446)
        self._main = os.getpid()
        self._stop: Callable[[], float] | None = None

    def guard_forks(self) -> None:
        """Watch the main process in every child that is forked from now on."""
        os.register_at_fork(after_in_child=self._begin)

    def release(self) -> None:
        """In the main process: make all children end, as if the main process had ended."""
        os.close(self._write_end)

    def stop_by(self, stop: Callable[[], float]) -> None:
        """In a child: set the function that stops it. It is called in another thread, and returns how many seconds the
        stop may take; after that the process is killed. A child without such a function ends immediately.
        """
        self._stop = stop

    @property
    def is_orphan(self) -> bool:
        """In a child: whether the main process has ended."""
        return os.getppid() != self._main

    def _begin(self) -> None:
        os.close(self._write_end)
        threading.Thread(target=self._wait, name="parent watch", daemon=True).start()

    def _wait(self) -> None:
        while os.read(self._read_end, 1):
            pass  # the main process never writes
        if self._stop is not None:
            time.sleep(self._stop() + _MARGIN_SECONDS)
        os._exit(_STATUS)
