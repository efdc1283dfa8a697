"""Writes what was measured: the tables, the method, the machine, the picture."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.checks import Bound
from tests.bench.contenders import WORKERS
from tests.bench.plan import Plan, size_text
from tests.bench.results import Results
from tests.bench.tables import SECTIONS, section_text

PICTURE = "docs/benchmarks.png"

_HEAD = """\
# Benchmarks

Written by `scripts/bench` ({extent}); the numbers are of one run on one machine, all servers side by side. Yours \
will differ, their ratios less so. `scripts/bench --check` fails where a bound below does not hold.
"""

_METHOD = """\
## Method

- One upstream for all, a docker-registry without authentication. Against it: this service with its default settings, \
docker-registry as a pull-through cache (`proxy.remoteurl`), and nginx with `proxy_cache`, `proxy_cache_lock` and \
`sendfile`, {workers} worker processes for those that have workers. Each writes an access log to a file; everything \
is on loopback, without TLS.
- Content and caches lie in memory-backed folders, so that no disk is measured. The servers share the machine's cores \
with the upstream and the clients.
- Rounds alternate between the servers ({rounds} of them; peak memory: one). A number is the median of the rounds; in \
brackets, how many times the best peer's it is.
- Download clients are one process with a selector; the kernel throws the bytes away (`MSG_TRUNC`). Each must get 200 \
and the whole length. Digests are proven apart from the measurement, for each server and blob.
- CPU is user and system time of all processes of a server, out of /proc. What the upstream sent and how often it \
was asked is read from its access log.
- Clients bring the `Accept` header of docker and, to us, a token of the repository.
- {slow_clients:,} slow clients read {slow_rate} per second each.
"""


def headline(bounds: Sequence[Bound]) -> str:
    if not bounds:
        return ""
    lines = ["## Bounds", "", "| bound | limit | measured | |", "| --- | --: | --: | --- |"]
    for bound in bounds:
        # Three places: what fails by little shall not read like the limit.
        measured = "not measured" if bound.measured is None else f"{bound.measured:,.3f}"
        verdict = "holds" if bound.holds else "**fails**"
        lines.append(f"| {bound.text} | {bound.sign} {bound.limit:g} | {measured} | {verdict} |")
    return "\n".join([*lines, ""])


def tables(results: Results) -> str:
    return "\n".join(filter(None, (section_text(section, results) for section in SECTIONS)))


def notes(results: Results) -> str:
    lines = [*results.notes, *(f"**Failed:** {failure}" for failure in results.failures)]
    return "\n".join([*(f"- {line}" for line in lines), ""]) if lines else ""


def document(results: Results, bounds: Sequence[Bound], metadata: dict[str, str], *, picture: bool) -> str:
    plan = results.plan
    machine = ["| what | which |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in metadata.items()), ""]
    parts = [
        _HEAD.format(extent="a smoke run with small sizes: its numbers mean little" if plan.is_quick else "a full run"),
        f"![The main results as bars]({PICTURE})\n" if picture else "",
        headline(bounds),
        "## Results\n",
        notes(results),
        tables(results),
        _method(plan),
        "\n".join(["## Machine", "", *machine]),
    ]
    return "\n".join(part for part in parts if part).rstrip("\n") + "\n"


def _method(plan: Plan) -> str:
    return _METHOD.format(
        workers=WORKERS, rounds=plan.rounds, slow_clients=plan.slow_clients, slow_rate=size_text(plan.slow_rate)
    )


def draw(python: str, data: Path, picture: Path) -> str:
    """The reason why there is no picture, or nothing. matplotlib lives in an environment of its own."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    argv = [python, "-m", "tests.bench.picture", str(data), str(picture)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
