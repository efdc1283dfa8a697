"""The first step of the console script, before anything large is imported."""

import sys

from entrypoints.server.signals import hold_hang_up


def main() -> int:
    """Whoever reloads a service that has only just been started must not end it: SIGHUP does that to a process that
    is not prepared for it, and a service manager takes such an end for an orderly one. Other commands end with their
    terminal.
    """
    if "serve" in sys.argv[1:]:
        hold_hang_up()
    from entrypoints.cli import main as run_command  # noqa: PLC0415 - the most of a start is to import it

    return run_command()
