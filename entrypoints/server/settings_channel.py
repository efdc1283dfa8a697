"""SettingsChannel: the main process publishes new settings to its worker processes."""

import hashlib
import mmap
import os
import pickle
import signal
from contextlib import suppress
from typing import Any, NamedTuple

from application.ports.reloads import ReloadResult
from entrypoints.settings import Settings

_NUMBER_BYTES = 8
_DIGEST_BYTES = 32


class PublishedSettings(NamedTuple):
    """`number` counts the publications of this service."""

    number: int
    settings: Settings


class SettingsChannel:
    """Created before the workers are forked. Only the main process reads and validates settings: workers that read the
    files themselves could read different versions, and each would generate its own SERVER_SECRET if none is set.

    The settings are in anonymous shared memory, which only processes of this service can access. So what a worker
    unpickles was pickled by the main process, and secrets are not written to a disk. Workers are notified by an eventfd
    and not by a signal, which could be sent to a process that is just starting or ending: an eventfd stays readable
    until the worker of that number reads it, even if that worker has been replaced.

    Implements Reloads.
    """

    def __init__(self, workers: int) -> None:
        self._memory = os.memfd_create("settings")
        self._result = os.memfd_create("result of a reload")
        self._main_process = os.getpid()
        self._notifications = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(workers)]
        # For each worker, its last acknowledgement: twice the number, plus one if it could not apply the settings.
        self._acknowledgements = memoryview(mmap.mmap(-1, workers * _NUMBER_BYTES)).cast("Q")
        self.number = 0
        """The last publication that this process made, or that it was forked with."""

    # --- for the main process ---

    def publish(self, settings: Settings) -> None:
        self.number += 1
        _write(self._memory, PublishedSettings(self.number, settings))
        for notification in self._notifications:
            with suppress(BlockingIOError):  # the counter is at its maximum, so the descriptor is readable
                os.eventfd_write(notification, 1)

    def publish_result(self, result: ReloadResult) -> None:
        """How the last reload ended."""
        _write(self._result, result)

    @property
    def is_acknowledged(self) -> bool:
        """Whether every worker has applied or rejected the last publication."""
        return all(value // 2 == self.number for value in self._acknowledgements)

    @property
    def failed_workers(self) -> int:
        """How many workers have not applied the last publication."""
        return sum(value != 2 * self.number for value in self._acknowledgements)

    # --- for the workers; `worker` is the number of the calling one ---

    def notification(self, worker: int) -> int:
        """The descriptor that becomes readable when settings are published."""
        return self._notifications[worker]

    def clear_notification(self, worker: int) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._notifications[worker])

    def read(self) -> PublishedSettings | None:
        """The last publication. None if it is not completely written; a notification follows when it is."""
        published: PublishedSettings | None = _read(self._memory)
        return published

    def acknowledge(self, worker: int, number: int, *, applied: bool) -> None:
        self._acknowledgements[worker] = 2 * number + (not applied)

    # --- Reloads, for the page ---

    def request(self) -> None:
        with suppress(ProcessLookupError):  # the service is ending
            os.kill(self._main_process, signal.SIGHUP)

    def last(self) -> ReloadResult | None:
        result: ReloadResult | None = _read(self._result)
        return result


def _write(memory: int, value: object) -> None:
    text = pickle.dumps(value)
    os.ftruncate(memory, 0)
    os.pwrite(memory, hashlib.sha256(text).digest() + text, 0)


def _read(memory: int) -> Any:
    """What was written last; None if nothing was, or if it is not completely written."""
    content = os.pread(memory, os.fstat(memory).st_size, 0)
    digest, text = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if not text or hashlib.sha256(text).digest() != digest:
        return None
    return pickle.loads(text)  # noqa: S301 - pickled by the main process, see SettingsChannel
