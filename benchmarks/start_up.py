"""The time from the start of a server to its first answer."""

import subprocess
import sys
import time

from benchmarks.arena import Arena
from benchmarks.contenders import CONTENDERS

START = "start-up"
FIRST_ANSWER = "exec to the first 200"
IMPORTS = "import sanic, aiohttp"  # the same work in every version, so its time shows how fast the machine is
IMPORTER = "Python with only these imports"
_TIMES = 3  # in each round, because a start is short and varies


def start_up(arena: Arena) -> None:
    for _ in range(_TIMES * arena.plan.rounds):
        imports = _import_seconds()
        arena.results.add(START, f"python -c '{IMPORTS}'", IMPORTER, seconds=imports)
        for name in CONTENDERS:
            with arena.fresh(name) as server:
                took = server.start_seconds
                arena.results.add(START, FIRST_ANSWER, name, seconds=took, relative=took / imports)


def _import_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=60)
    return time.perf_counter() - began
