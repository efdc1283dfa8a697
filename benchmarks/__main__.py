"""Measures the service, docker-registry and nginx and compares them. scripts/bench installs them and runs this."""

import argparse
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.arena import Arena, make_arena
from benchmarks.blobs import (
    COLD,
    COLD_TLS,
    WARM,
    WARM_TLS,
    cold_blobs,
    cold_blobs_over_tls,
    warm_blobs,
    warm_blobs_over_tls,
)
from benchmarks.checks import Bound, bounds
from benchmarks.contenders import COLD_CONTENDERS, Server, distribution
from benchmarks.crowds import MEMORY, SLOW, peak_memory, slow_clients
from benchmarks.limited import EACH, IN_ALL, limited_connections, limited_line
from benchmarks.machine import Neighbours, metadata
from benchmarks.manifests import MANIFESTS, manifests
from benchmarks.network import congestion_control, enter_own_network
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.pulls import PULLS, docker_pulls
from benchmarks.ranges import RANGES, shared_ranges
from benchmarks.results import DISTRIBUTION, Results
from benchmarks.several_replicas import REPLICAS, warm_replicas
from benchmarks.shared_store import STORE, blobs_to_a_store
from benchmarks.start_up import START, start_up
from benchmarks.watching import Watch
from tests.e2e.support.processes import program

ROOT = Path(__file__).parents[1]
APART = ROOT / "build" / "bench"
NEEDED = ("docker-registry", "nginx", "wrk")

BESIDE: dict[str, Callable[[Arena, Sequence[Server]], None]] = {
    MANIFESTS: manifests, SLOW: slow_clients, PULLS: docker_pulls,
}  # fmt: skip
ALONE: dict[str, Callable[[Arena], None]] = {
    START: start_up, COLD: cold_blobs, COLD_TLS: cold_blobs_over_tls, EACH: limited_connections, IN_ALL: limited_line,
    RANGES: shared_ranges, MEMORY: peak_memory, WARM: warm_blobs, WARM_TLS: warm_blobs_over_tls,
    REPLICAS: warm_replicas, STORE: blobs_to_a_store,
}  # fmt: skip
SCENARIOS = {name.replace(" ", "-").lower(): name for name in (*BESIDE, *ALONE)}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    description = "Compares the speed of the service with docker-registry and nginx."
    parser = argparse.ArgumentParser(prog="scripts/bench", description=description)
    parser.add_argument("--rounds", type=int, metavar="N", help="number of rounds; default 3, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small sizes, to test the benchmarks themselves")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="only this scenario; may be repeated")
    parser.add_argument(
        "--watched", action="store_true", help="with the page of the service open and its metrics scraped each second"
    )
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bound does not hold")
    parser.add_argument("--distribution", type=Path, help="the program of distribution v3, to measure it too")
    parser.add_argument("--plot-python", default=sys.executable, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def plan_of(options: argparse.Namespace) -> Plan:
    plan = replace(QUICK if options.quick else FULL, is_watched=options.watched)
    return replace(plan, rounds=options.rounds) if options.rounds else plan


def add_peers(results: Results, program: Path | None) -> None:
    if program:
        COLD_CONTENDERS[DISTRIBUTION] = distribution(program)
    else:
        results.note(
            "distribution v3 was not measured: `scripts/bench` builds it if Go is installed and the variable "
            "`DISTRIBUTION` is the path of a checkout."
        )
    results.note("Zot was not measured: its build downloads the source of several hundred modules.")


def measure(results: Results, wanted: set[str], watch: Watch | None) -> None:
    with make_arena(results, watch) as arena:
        for name in [name for name in ALONE if name in wanted]:
            attempt(results, name, lambda scenario=ALONE[name]: scenario(arena))
        if wanted & BESIDE.keys():
            attempt(results, "the warm servers", lambda: measure_beside(arena, wanted))


def measure_beside(arena: Arena, wanted: set[str]) -> None:
    with arena.filled([arena.big]) as servers:
        for name in [name for name in BESIDE if name in wanted]:
            attempt(arena.results, name, lambda scenario=BESIDE[name]: scenario(arena, servers))


def attempt(results: Results, name: str, scenario: Callable[[], None]) -> None:
    """Record a failure in the results, so that the other scenarios are still measured."""
    began = time.monotonic()
    print(f"== {name}", file=sys.stderr, flush=True)
    try:
        scenario()
    except Exception as trouble:  # noqa: BLE001 - the results name it, and the run ends with status 1
        results.failures.append(f"{name}: {trouble!r}")
        print(f"  FAILED: {trouble!r}", file=sys.stderr, flush=True)
    print(f"   {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def write(
    results: Results, found: Sequence[Bound], options: argparse.Namespace, machine: dict[str, str], watch: Watch | None
) -> None:
    """Write the report into the checkout after a complete run of the usual kind, otherwise into build/bench."""
    is_whole = not options.quick and not options.only and not watch and not results.failures
    folder = ROOT if is_whole else APART
    APART.mkdir(parents=True, exist_ok=True)
    data = APART / "results.json"
    results.save(data)
    reason = report.draw(options.plot_python, data, folder / report.PICTURE)
    if reason:
        print(f"no picture: {reason}", file=sys.stderr)
    text = report.document(results, found, machine, picture=not reason, watched=watch.text() if watch else "")
    (folder / "BENCHMARKS.md").write_text(text, encoding="utf-8")
    print(f"\nwritten: {(folder / 'BENCHMARKS.md').relative_to(ROOT)}", file=sys.stderr)


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    missing = [name for name in NEEDED if not program(name)]
    if missing:
        print(f"bench: not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    # SIGTERM raises SystemExit, so that the context managers stop the servers and remove their folders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = {SCENARIOS[name] for name in options.only or SCENARIOS}
    results = Results(plan_of(options))
    watch = Watch() if options.watched else None
    add_peers(results, options.distribution)
    try:
        enter_own_network()
    except OSError as error:
        results.note(
            f"The run had no network of its own ({error.strerror}): its connections used {congestion_control()}."
        )
    began, neighbours = time.monotonic(), Neighbours()
    measure(results, wanted, watch)
    if watch:
        results.failures.extend(f"the watcher: {problem}" for problem in watch.problems)
    if cut := neighbours.cut():
        results.note(f"The kernel was out of memory for sockets (tcp_mem) and reset {cut} connections.")
    found = [bound for bound in bounds(results) if bound.scenario in wanted]
    print("\n".join(filter(None, [report.headline(found), report.notes(results), report.tables(results)])))
    write(results, found, options, metadata(neighbours, options.distribution), watch)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
    broken = [bound.text for bound in found if not bound.holds] if options.check else []
    for text in broken:
        print(f"bench: this bound does not hold: {text}", file=sys.stderr)
    return 1 if broken or results.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
