"""A program that imports modules and prints the side effects of the imports.

Arguments: a file with import statements of libraries, whose side effects are allowed; then the modules to check.
"""

import asyncio
import gc
import importlib
import os
import sys
import threading
from pathlib import Path

_LOUD = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "urllib.")
_CODE = (".py", ".pyc", ".so")


def main() -> None:
    exec(Path(sys.argv[1]).read_text(encoding="utf-8"), {})  # noqa: S102 - the import statements of our own modules
    environment, living, noticed = dict(os.environ), _living(), list[str]()
    listening = True

    def notice(event: str, args: tuple[object, ...]) -> None:
        if listening and (event.startswith(_LOUD) or (event == "open" and not _is_import(args))):
            noticed.append(f"{event} {args[:2]}")

    sys.addaudithook(notice)
    # Python 3.11 has no audit event for a new thread, and a short thread ends before the threads are counted.
    threading.Thread.start = lambda thread: noticed.append(f"thread {thread.name}")  # type: ignore[method-assign]
    for module in sys.argv[2:]:
        importlib.import_module(module)
    listening = False
    noticed += [f"alive: {one}" for one in sorted(_living() - living)]
    noticed += ["environment changed"] if dict(os.environ) != environment else []
    print("\n".join(noticed))


def _living() -> set[str]:
    kinds = (asyncio.Future, asyncio.AbstractEventLoop)
    return {
        repr(one) for one in [*gc.get_objects(), *threading.enumerate()] if isinstance(one, (*kinds, threading.Thread))
    }


def _is_import(args: tuple[object, ...]) -> bool:
    """Whether the interpreter opens the file to import its code."""
    path, mode = args[0], args[1]
    return isinstance(path, str) and path.endswith(_CODE) and mode in {"r", "rb", None}


if __name__ == "__main__":
    main()
