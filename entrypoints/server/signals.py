"""SIGHUP is held back from the first moment of the process; the main process asks for it."""

import signal


def hold_hang_up() -> None:
    """The kernel keeps a SIGHUP until the main process asks for it (`workers.py`). All that is forked holds it
    too, and never hears one.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
