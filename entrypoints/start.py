"""The console script: blocks SIGHUP before it imports anything large."""

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> int:
    """SIGHUP ends a process that has no handler for it, and a service manager would take that for an orderly stop. So
    `serve` blocks SIGHUP first: the kernel keeps the signal until the main process is ready for it
    (entrypoints/server/workers.py), and a reload that arrives during the start is not lost. Other commands still end
    with their terminal.
    """
    if "serve" in sys.argv[1:]:
        gc.disable()  # nothing becomes garbage during the start; `serve.run` enables the collection
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from entrypoints.cli import main as run_command  # noqa: PLC0415 - this import takes most of the start-up time

    status = run_command()
    if "obstore" in sys.modules and "serve" not in sys.argv[1:]:
        _end(status)
    return status


def _end(status: int) -> NoReturn:
    """End without the finalization of Python: a thread of obstore that is ending a request would then ask for the
    interpreter lock, and Python stops such a thread in a way that makes the process abort.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)
