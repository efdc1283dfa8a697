"""The speed that the project promises, as bounds on the results of one run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import blobs, crowds, manifests
from benchmarks.plan import MIB, blob_case
from benchmarks.results import NGINX, OURS, REGISTRY, SANIC, Results


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
    return [*_warm(results), *_manifests(results), *_cold(results), *_crowds(results)]


def _compare(results: Results, scenario: str, case: str) -> Callable[..., Bound]:
    def bound(metric: str, to: str, text: str, limit: float, *, at_least: bool) -> Bound:
        ratio = results.ratio(scenario, case, metric, OURS, to)
        return Bound(scenario, f"{scenario}, {case}: {text} relative to {to}", ratio, limit, at_least)

    return bound


def _warm(results: Results) -> Iterator[Bound]:
    bound = _compare(results, blobs.WARM, blob_case(results.plan.big, 4))
    yield bound("throughput", REGISTRY, "throughput", 1.3, at_least=True)
    yield bound("throughput", NGINX, "throughput", 1.2, at_least=True)
    yield bound("cpu", REGISTRY, "CPU per GiB", 0.6, at_least=False)
    yield bound("cpu", NGINX, "CPU per GiB", 0.8, at_least=False)


def _manifests(results: Results) -> Iterator[Bound]:
    bound = _compare(results, manifests.MANIFESTS, manifests.BY_TAG)
    yield bound("rate", REGISTRY, "requests/s", 30, at_least=True)
    yield bound("rate", SANIC, "requests/s", 0.6, at_least=True)


def _cold(results: Results) -> Iterator[Bound]:
    bound = _compare(results, blobs.COLD, blob_case(results.plan.big, 1))
    yield bound("throughput", REGISTRY, "throughput", 0.7, at_least=True)
    yield bound("first_byte", REGISTRY, "time to the first byte", 1.5, at_least=False)
    refused = results.median(blobs.COLD, blobs.FLIPPED, OURS, "refused")
    yield Bound(blobs.COLD, f"{blobs.COLD}, {blobs.FLIPPED}: downloads refused", refused, 1, at_least=True)
    case = blob_case(results.plan.small, 50)
    gets = results.worst(blobs.COLD, case, OURS, "gets")
    yield Bound(blobs.COLD, f"{blobs.COLD}, {case}: GETs without a Range at the upstream", gets, 1, at_least=False)
    sent = results.worst(blobs.COLD, case, OURS, "upstream")
    share = sent * MIB / results.plan.small if sent is not None else None
    yield Bound(
        blobs.COLD, f"{blobs.COLD}, {case}: bytes from the upstream relative to the blob", share, 1, at_least=False
    )


def _crowds(results: Results) -> Iterator[Bound]:
    who = blob_case(results.plan.big, results.plan.crowd)
    for state in (crowds.COLD, crowds.WARM):
        case = f"{who}, {state}"
        peak = results.worst(crowds.MEMORY, case, OURS, "peak")
        yield Bound(crowds.MEMORY, f"{crowds.MEMORY}, {case}: peak in MiB", peak, 250, at_least=False)
    alone = results.median(crowds.SLOW, crowds.ALONE, OURS, "throughput")
    beside = results.median(crowds.SLOW, crowds.BESIDE, OURS, "throughput")
    share = beside / alone if beside is not None and alone else None
    text = (
        f"{crowds.SLOW}: throughput of a fast client beside {results.plan.slow_clients:,} slow ones, relative to alone"
    )
    yield Bound(crowds.SLOW, text, share, 0.8, at_least=True)
