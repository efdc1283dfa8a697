"""Writes the report: bounds, tables, method, machine and picture."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.checks import Bound
from benchmarks.contenders import WORKERS
from benchmarks.plan import Plan, size_text
from benchmarks.results import Results
from benchmarks.tables import SECTIONS, section_text

PICTURE = "docs/benchmarks.png"

_HEAD = """\
# Benchmarks

Written by `scripts/bench` ({extent}). The figures are from one run on one machine, with all servers side by side. On \
another machine the figures are different, but the ratios change less. `scripts/bench --check` fails if a bound below \
does not hold.
"""

_METHOD = """\
## Method

- All servers use the same upstream, a docker-registry without authentication. They are this service with its default \
settings, docker-registry as a pull-through cache (`proxy.remoteurl`), and nginx with `proxy_cache`, \
`proxy_cache_lock` and `sendfile`; those with worker processes have {workers}. Each writes an access log to a file. \
All connections are on loopback, without TLS unless the table says so. With TLS the upstream is a second \
docker-registry with the same content; all certificates are made for the run.
- Content and caches are in memory-backed folders, so that no disk is measured. The servers share the machine's cores \
with the upstream and the clients.
- Before each measurement of a cold blob, three times its size is written to a file beside the caches and deleted. The \
host of a virtual machine can take free memory back; the first write to such memory takes several times as long, and \
a server would be measured by what the one before it had used.
- A limited upstream is a relay in front of the docker-registry, which limits the rate, counts the bytes and divides \
them equally among the connections. It passes on all requests, also those with a Range, and keeps connections open.
- Rounds alternate between the servers ({rounds} rounds; one for peak memory). A figure is the median of the rounds. \
The ratio to the best other server is in brackets. A bound relative to another server is the median of the ratios of \
the rounds.
- The download clients are threads of one process; the kernel discards the bytes (`MSG_TRUNC`). With TLS they decrypt \
only the head of a response. Each client must get 200 and the whole length. Digests are verified separately, for each \
server and blob.
- CPU is the user and system time of all processes of a server, from /proc. Bytes and requests of the upstream are \
read from its access log.
- Clients send the `Accept` header of docker and, to this service, a token of the repository.
- {slow_clients:,} slow clients read {slow_rate} per second each.
- nginx and this service both send warm blobs with `sendfile`, so their ratio depends on the kernel of the machine. \
The bounds relative to nginx for warm blobs leave room for that.
- Four aims are not reached yet: for one client of a cold blob, 0.85 of nginx's throughput and 1.15 of its CPU time \
plus one pass of SHA-256; for the start, 1.36 times the time of the imports; for a fast client beside 1,000 slow ones, \
0.8 of its throughput alone. Their bounds only find regressions.
"""


def headline(bounds: Sequence[Bound]) -> str:
    if not bounds:
        return ""
    lines = ["## Bounds", "", "| bound | limit | measured | |", "| --- | --: | --: | --- |"]
    for bound in bounds:
        # Three decimal places, so that a number just outside the limit does not look equal to the limit.
        measured = "not measured" if bound.measured is None else f"{bound.measured:,.3f}"
        verdict = "holds" if bound.holds else "**fails**"
        lines.append(f"| {bound.text} | {bound.sign} {bound.limit:g} | {measured} | {verdict} |")
    return "\n".join([*lines, ""])


def tables(results: Results) -> str:
    return "\n".join(filter(None, (section_text(section, results) for section in SECTIONS)))


def notes(results: Results) -> str:
    lines = [*results.notes, *(f"**Failed:** {failure}" for failure in results.failures)]
    return "\n".join([*(f"- {line}" for line in lines), ""]) if lines else ""


def document(
    results: Results, bounds: Sequence[Bound], metadata: dict[str, str], *, picture: bool, watched: str = ""
) -> str:
    """`watched`: what was received from the mirrors if they were watched during the run."""
    plan = results.plan
    machine = [
        "| property | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in metadata.items()),
        "",
    ]
    parts = [
        _HEAD.format(extent="a smoke run with small sizes: its numbers mean little" if plan.is_quick else "a full run"),
        f"**{watched}**\n" if watched else "",
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
    """Draw the picture with another Python, which has matplotlib. Returns why that failed, or ""."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    argv = [python, "-m", "benchmarks.picture", str(data), str(picture)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
