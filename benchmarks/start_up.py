"""The time from the start of a server to its first answer."""

from benchmarks.arena import Arena
from benchmarks.contenders import CONTENDERS

START = "start-up"
FIRST_ANSWER = "exec to the first 200"


def start_up(arena: Arena) -> None:
    for _ in range(arena.plan.rounds):
        for name in CONTENDERS:
            with arena.fresh(name) as server:
                arena.results.add(START, FIRST_ANSWER, name, seconds=server.start_seconds)
