"""The results as Markdown: a table of medians for each scenario, with the ratio to the best other server."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import blobs, crowds, limited, manifests, pulls, ranges, several_replicas, shared_store, start_up
from benchmarks.results import DIRECT, OURS, PEERS, Results


@dataclass(frozen=True)
class Metric:
    key: str
    heading: str
    digits: int = 2
    better: str = ""  # "more" or "less"; if empty, the servers are not compared by it


@dataclass(frozen=True)
class Section:
    scenario: str
    title: str
    text: str
    metrics: tuple[Metric, ...]
    peers: tuple[str, ...] = PEERS


_THROUGHPUT = Metric("throughput", "GiB/s", better="more")
_CPU = Metric("cpu", "CPU-s/GiB", better="less")
_UPSTREAM = Metric("upstream", "from upstream, MiB", 0)
_COLD = (
    _THROUGHPUT,
    _CPU,
    Metric("first_byte", "first byte, ms", 1, "less"),
    _UPSTREAM,
    Metric("gets", "full GETs", 0),
)
_LIMITED = (
    Metric("rate", "MB/s", 1, "more"), _UPSTREAM, Metric("most", "connections", 0),
    Metric("at_end", "at the end", 0),
)  # fmt: skip

SECTIONS = (
    Section(
        blobs.WARM,
        "Warm blobs",
        "The blob is in each server's cache. Throughput is the sum over all clients.",
        (_THROUGHPUT, _CPU, _UPSTREAM),
    ),
    Section(
        blobs.WARM_TLS,
        "Warm blobs to clients with TLS",
        "The blob is in each server's cache, and the server encrypts it.",
        (_THROUGHPUT, _CPU),
    ),
    Section(
        blobs.COLD,
        "Cold blobs",
        "Each round starts a new server with an empty cache. CPU includes the work after the clients have left. Full "
        "GETs are the requests for this blob without a Range that the upstream answered. One pass of SHA-256 is what "
        "a server needs to verify a digest; nginx does not. The time to the first byte is short and varies, so it is "
        "also measured with the layers of the image, three times in each round; each time counts the median of four.",
        _COLD,
    ),
    Section(
        blobs.COLD_TLS,
        "Cold blobs from an upstream with TLS",
        "The same, but the upstream uses TLS with a certificate that each server verifies. The clients do not use TLS.",
        _COLD,
    ),
    Section(
        limited.EACH,
        "Cold blobs from an upstream with limited connections",
        f"The upstream gives each connection {limited.RATE_EACH / 1e6:g} MB/s. With one client, the servers and a "
        "download directly from the upstream are measured at the same time, because none of them needs much of the "
        "processor. A connection is counted if it sent bytes in the same 0.1 s as the others; the last column counts "
        "only those of the last second.",
        _LIMITED,
        (*PEERS, DIRECT),
    ),
    Section(
        limited.IN_ALL,
        "Cold blobs from an upstream with a limited line",
        f"The upstream gives all connections together {limited.RATE_IN_ALL / 1e6:g} MB/s, and each that has something "
        "to send the same share.",
        _LIMITED,
        (limited.ONE_CONNECTION,),
    ),
    Section(
        ranges.RANGES,
        "Ranges of a cold blob",
        "All clients read the same ranges in the same order, each with one connection and at the same time.",
        (_UPSTREAM, Metric("gets", "GETs at the upstream", 0)),
    ),
    Section(
        manifests.MANIFESTS,
        "Warm manifests",
        f"wrk with one thread and {manifests.CONNECTIONS} connections. The empty Sanic handler has as many workers as "
        "the service and returns a constant body of the manifest's size.",
        (
            Metric("rate", "requests/s", 0, "more"),
            Metric("p50", "p50, ms", 2, "less"),
            Metric("p99", "p99, ms", 2, "less"),
        ),
    ),
    Section(
        pulls.PULLS,
        "docker pull",
        "The elapsed time of the command. docker needs most of it to unpack the layers.",
        (Metric("seconds", "seconds", 2, "less"),),
        (DIRECT,),
    ),
    Section(
        crowds.MEMORY,
        "Peak memory",
        "The sum of the proportional set sizes of all processes of a server, measured every 0.2 s. The clients of the "
        "service get the whole blob; those of the other servers stop after some seconds, after the peak.",
        (Metric("peak", "peak, MiB", 0, "less"), Metric("throughput", "GiB/s")),
    ),
    Section(
        crowds.SLOW,
        "A fast client beside slow ones",
        "One client downloads the large blob alone, and then while slow clients read the same blob.",
        (_THROUGHPUT, Metric("cost", "cost, %", 0), Metric("slowest", "slowest of the slow, KiB/s", 1)),
    ),
    Section(
        several_replicas.REPLICAS,
        "One replica and four replicas",
        "One replica with four workers, and four replicas with one worker each. They run on this machine with their "
        "own folders, and share a Valkey and a SeaweedFS. The same clients are divided among them, and everything is "
        "cached. CPU is that of all processes of the replicas. Reads of the index include those of the upkeep.",
        (
            Metric("cpu", "CPU-s/GiB", 3, "less"),
            Metric("request_cpu", "CPU-µs/request", 0, "less"),
            Metric("throughput", "GiB/s"),
            Metric("rate", "requests/s", 0),
            Metric("index_cpu", "CPU-s of Valkey", 2),
            Metric("index", "reads of the index", 0),
            Metric("store", "requests to the store", 0),
        ),
        (several_replicas.ONE,),
    ),
    Section(
        shared_store.STORE,
        "A cold blob beside a shared store",
        "The replica writes what it downloads to a SeaweedFS on the same machine, which gets the processors only while "
        "nothing else needs them, as if it were on another machine. CPU is that of the mirror until the client has the "
        "last byte.",
        (
            Metric("rate", "MB/s", 1, "more"),
            Metric("first_byte", "first byte, ms", 1, "less"),
            Metric("cpu", "CPU-s/GiB", 2, "less"),
        ),
        (shared_store.WITHOUT,),
    ),
    Section(
        start_up.START,
        "Start-up",
        f"The first row is what the machine needs for `python -c '{start_up.IMPORTS}'`. The bound is a ratio to it, "
        "because seconds depend on the machine: it is 0.45 s on a machine that needs 0.33 s for these imports.",
        (Metric("seconds", "seconds", 3, "less"), Metric("relative", "relative to the imports", 2)),
    ),
)


def section_text(section: Section, results: Results) -> str:
    cases = results.cases(section.scenario)
    if not cases:
        return ""
    lines = [f"### {section.title}", "", *([section.text, ""] if section.text else [])]
    headings = ["case", "server", *(metric.heading for metric in section.metrics)]
    lines += [_row(headings), _row(["---", "---", *("--:" for _ in section.metrics)])]
    for case, servers in cases.items():
        for number, server in enumerate(servers):
            cells = [_cell(results, section, case, server, metric) for metric in section.metrics]
            if not any(cells):
                continue  # a case that only a bound uses, such as the flipped bit
            lines.append(_row([case if not number else "", server, *cells]))
    return "\n".join([*lines, "", *_spread(results, section)])


def _cell(results: Results, section: Section, case: str, server: str, metric: Metric) -> str:
    value = results.median(section.scenario, case, server, metric.key)
    if value is None:
        return ""
    text = f"{value:,.{metric.digits}f}"
    ratio = to_best_peer(results, section, case, server, metric) if server.startswith(OURS) else None
    return f"**{text}** ({ratio:.2f}x)" if ratio is not None else text


def to_best_peer(results: Results, section: Section, case: str, server: str, metric: Metric) -> float | None:
    found = [results.median(section.scenario, case, peer, metric.key) for peer in section.peers]
    values = [value for value in found if value is not None]
    own = results.median(section.scenario, case, server, metric.key)
    if own is None or not metric.better or not values:
        return None
    best = max(values) if metric.better == "more" else min(values)
    return own / best if best else None


def _spread(results: Results, section: Section) -> Iterator[str]:
    """The largest difference between rounds, for the first metric. A smaller difference between servers is noise."""
    worst: list[tuple[float, str]] = []
    metric = section.metrics[0]
    for (scenario, case, server, key), values in results.values.items():
        middle = statistics.median(values)
        if scenario == section.scenario and key == metric.key and len(values) > 1 and middle:
            away = max(abs(value - middle) for value in values) / middle
            low, high = (f"{value:,.{metric.digits}f}" for value in (min(values), max(values)))
            worst.append((away, f"{server}, {case}: {low} to {high}"))
    if worst:
        away, where = max(worst)
        yield f"The rounds disagreed most in {metric.heading} of {where} ({100 * away:.0f} % from the median)."
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
