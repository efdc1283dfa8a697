"""The speed that the project promises, as bounds on the results of one run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import blobs, crowds, limited, manifests, ranges, several_replicas, shared_store, start_up
from benchmarks.plan import MIB, blob_case
from benchmarks.results import DIRECT, HASHLIB, NGINX, OURS, REGISTRY, SANIC, Results


@dataclass(frozen=True)
class Bound:
    scenario: str
    text: str
    measured: float | None
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """A bound without a measured number does not hold."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def sign(self) -> str:
        return "≥" if self.at_least else "≤"


def bounds(results: Results) -> list[Bound]:
    parts = (
        _start,
        _warm,
        _manifests,
        _cold,
        _cold_tls,
        _limited_connections,
        _limited_line,
        _ranges,
        _crowds,
        _replicas,
        _shared_store,
    )
    return [bound for part in parts for bound in part(results)]


def _compare(results: Results, scenario: str, case: str) -> Callable[..., Bound]:
    def bound(metric: str, to: str, text: str, limit: float, *, at_least: bool) -> Bound:
        ratio = results.ratio(scenario, case, metric, OURS, to)
        return Bound(scenario, f"{scenario}, {case}: {text} relative to {to}", ratio, limit, at_least)

    return bound


def _start(results: Results) -> Iterator[Bound]:
    # A bound in seconds would depend on the machine. The aim is 1.36. Nearly all of it are imports.
    ratio = results.median(start_up.START, start_up.FIRST_ANSWER, OURS, "relative")
    text = f"{start_up.START}, {start_up.FIRST_ANSWER}: relative to python -c '{start_up.IMPORTS}'"
    yield Bound(start_up.START, text, ratio, 1.7, at_least=False)


def _warm(results: Results) -> Iterator[Bound]:
    # The service and nginx both send with sendfile, so most of the time is spent in the kernel, and the ratio to nginx
    # depends on it: from 0.95 to 1.2 times nginx's throughput on the machines that were measured. These bounds leave
    # room for that, but not for copying the bytes through Python.
    bound = _compare(results, blobs.WARM, blob_case(results.plan.big, 4))
    yield bound("throughput", REGISTRY, "throughput", 1.3, at_least=True)
    yield bound("throughput", NGINX, "throughput", 0.85, at_least=True)
    yield bound("cpu", REGISTRY, "CPU per GiB", 0.6, at_least=False)
    yield bound("cpu", NGINX, "CPU per GiB", 1.25, at_least=False)
    bound = _compare(results, blobs.WARM_TLS, blob_case(results.plan.big, 4))
    yield bound("throughput", NGINX, "throughput", 0.85, at_least=True)


def _manifests(results: Results) -> Iterator[Bound]:
    bound = _compare(results, manifests.MANIFESTS, manifests.BY_TAG)
    yield bound("rate", REGISTRY, "requests/s", 30, at_least=True)
    yield bound("rate", SANIC, "requests/s", 0.6, at_least=True)


def _cold(results: Results) -> Iterator[Bound]:
    bound = _compare(results, blobs.COLD, blob_case(results.plan.big, 1))
    yield bound("throughput", REGISTRY, "throughput", 0.7, at_least=True)
    yield bound("first_byte", REGISTRY, "time to the first byte", 1.5, at_least=False)
    # nginx sends what it receives; the service first looks whether the caller may read the layer and whether another
    # process is fetching it.
    first = _compare(results, blobs.COLD, blobs.LAYERS)
    yield first("first_byte", NGINX, "time to the first byte", 1.5, at_least=False)
    yield from _cold_beside_nginx(results, blobs.COLD, throughput=0.35, cpu=2.5)
    refused = results.median(blobs.COLD, blobs.FLIPPED, OURS, "refused")
    yield Bound(blobs.COLD, f"{blobs.COLD}, {blobs.FLIPPED}: downloads refused", refused, 1, at_least=True)
    case = blob_case(results.plan.small, 50)
    gets = results.worst(blobs.COLD, case, OURS, "gets")
    yield Bound(blobs.COLD, f"{blobs.COLD}, {case}: GETs without a Range at the upstream", gets, 1, at_least=False)
    yield _sent(results, blobs.COLD, case, results.plan.small, 1)


def _cold_tls(results: Results) -> Iterator[Bound]:
    yield from _cold_beside_nginx(results, blobs.COLD_TLS, throughput=0.45, cpu=2.2)


def _cold_beside_nginx(results: Results, scenario: str, *, throughput: float, cpu: float) -> Iterator[Bound]:
    """nginx does not verify what it stores, so one pass of SHA-256 is allowed besides.
    The aim is 0.85 of its throughput and 1.15 of its CPU time. It is not reached: on the machine of the report, the
    system calls that receive, store and send a blob need 1.3 of nginx's whole CPU time, before any Python runs. The
    bounds are between the aim and the worst that was measured, so that a regression breaks them.
    """
    case = blob_case(results.plan.big, 1)
    yield _compare(results, scenario, case)("throughput", NGINX, "throughput", throughput, at_least=True)
    hashing = results.median(scenario, blobs.HASHED, HASHLIB, "cpu")
    ours, nginx = (results.median(scenario, case, server, "cpu") for server in (OURS, NGINX))
    ratio = (ours - hashing) / nginx if ours is not None and nginx and hashing is not None else None
    text = f"{scenario}, {case}: CPU per GiB less one pass of SHA-256, relative to {NGINX}"
    yield Bound(scenario, text, ratio, cpu, at_least=False)


def _limited_connections(results: Results) -> Iterator[Bound]:
    bound = _compare(results, limited.EACH, blob_case(results.plan.small, 1))
    yield bound("rate", REGISTRY, "throughput", 3.5, at_least=True)
    yield bound("rate", DIRECT, "throughput", 3.5, at_least=True)
    yield _sent(results, limited.EACH, blob_case(results.plan.small, limited.MANY), results.plan.small, 1.02)


def _limited_line(results: Results) -> Iterator[Bound]:
    case = blob_case(results.plan.big, 1)
    yield _compare(results, limited.IN_ALL, case)("rate", limited.ONE_CONNECTION, "throughput", 0.95, at_least=True)
    used = results.median(limited.IN_ALL, case, OURS, "at_end")
    yield Bound(
        limited.IN_ALL, f"{limited.IN_ALL}, {case}: connections during the last second", used, 2, at_least=False
    )


def _ranges(results: Results) -> Iterator[Bound]:
    plan = results.plan
    yield _sent(results, ranges.RANGES, ranges.pieces_case(plan), plan.ranged, 1.1)
    for clients in (1, ranges.CLIENTS):
        case = ranges.spots_case(plan, clients)
        sent = results.worst(ranges.RANGES, case, OURS, "upstream")
        yield Bound(ranges.RANGES, f"{ranges.RANGES}, {case}: MiB from the upstream", sent, 40, at_least=False)


def _sent(results: Results, scenario: str, case: str, size: int, limit: float) -> Bound:
    sent = results.worst(scenario, case, OURS, "upstream")
    share = sent * MIB / size if sent is not None else None
    return Bound(
        scenario, f"{scenario}, {case}: bytes from the upstream relative to the blob", share, limit, at_least=False
    )


_PAGE_MIB = 12
"""What the libraries, texts and templates of the page take in two workers: 6 to 11 MiB were measured."""


def _crowds(results: Results) -> Iterator[Bound]:
    who = blob_case(results.plan.big, results.plan.crowd)
    for state in (crowds.COLD, crowds.WARM):
        case = f"{who}, {state}"
        peak = results.worst(crowds.MEMORY, case, OURS, "peak")
        limit = 120 + (_PAGE_MIB if results.plan.is_watched else 0)
        yield Bound(crowds.MEMORY, f"{crowds.MEMORY}, {case}: peak in MiB", peak, limit, at_least=False)
    # Not relative to the client alone: the slow clients themselves take a part of the two processors, of which a faster
    # server loses more. Alone, the service is about 1.5 times as fast as nginx; beside the slow ones, both send what
    # these leave. Relative to alone, 0.5 to 0.77 was measured, and 0.69 to 0.81 for nginx.
    yield _compare(results, crowds.SLOW, crowds.BESIDE)("throughput", NGINX, "throughput", 0.8, at_least=True)


def _replicas(results: Results) -> Iterator[Bound]:
    name, one, four = several_replicas.REPLICAS, several_replicas.ONE, several_replicas.FOUR
    blob = blob_case(results.plan.small, several_replicas.CLIENTS)
    for case, metric, what in (
        (blob, "cpu", "CPU per GiB"),
        (several_replicas.MANIFESTS, "request_cpu", "CPU per request"),
    ):
        ratio = results.ratio(name, case, metric, four, one)
        yield Bound(name, f"{name}, {case}: {what} of four relative to one", ratio, 1.1, at_least=False)
        asked = [results.worst(name, case, server, "store") for server in (one, four)]
        most = max((number for number in asked if number is not None), default=None)
        yield Bound(name, f"{name}, {case}: requests to the store", most, 0, at_least=False)


def _shared_store(results: Results) -> Iterator[Bound]:
    # The aim is 0.9 on both. On two processors that the upstream, the client and the store also need, 0.74 to 0.93 was
    # measured on the fast line: what the mirror does for the store takes processor time from them.
    for line, limit in ((shared_store.FAST_LINE, 0.7), (shared_store.LIMITED_LINE, 0.9)):
        name, case = shared_store.STORE, shared_store.line_case(results.plan.big, line)
        ratio = results.ratio(name, case, "rate", shared_store.WITH, shared_store.WITHOUT)
        text = f"{name}, {case}: throughput with a shared store relative to that without"
        yield Bound(name, text, ratio, limit, at_least=True)
