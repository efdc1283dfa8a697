"""The text of metrics in the format of Prometheus, that of histograms in parts.

prometheus_client makes an object for each bucket. A mirror with 20 upstreams can have a hundred thousand buckets, for
which this would take a large part of a second. The text here is the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from adapters.telemetry.shared_numbers import SharedHistogram

SERIES_IN_PART = 48
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def families_text(families: Iterable[Metric]) -> bytes:
    """The text of a few metrics without many time series."""
    return generate_latest(_Families(families))


def histogram_text(name: str, meaning: str, labels: Sequence[str], histogram: SharedHistogram) -> Iterator[bytes]:
    """The text in parts: the lines that describe the metric, and then at most SERIES_IN_PART time series in each."""
    yield families_text([HistogramMetricFamily(name, meaning, labels=labels)])
    bounds = [*map(str, histogram.bounds), "+Inf"]
    series = histogram.read()
    while part := list(islice(series, SERIES_IN_PART)):
        lines: list[str] = []
        for values, cumulated, count, total in part:
            before, after = _labels(labels, values)
            head, tail = f'{name}_bucket{{{before}le="', f'"{after}}} '
            numbers = [*cumulated, count]
            lines += [f"{head}{bound}{tail}{_number(number)}\n" for bound, number in zip(bounds, numbers, strict=True)]
            own = f"{{{(before + after.removeprefix(',')).removesuffix(',')}}}"
            lines.append(f"{name}_count{own} {_number(count)}\n{name}_sum{own} {_number(total)}\n")
        yield "".join(lines).encode()


def _labels(names: Sequence[str], values: Sequence[str]) -> tuple[str, str]:
    """The text of the labels before `le`, which ends with a comma, and that of those after it, which begins with one.
    Labels are sorted by name.
    """
    pairs = [(name, f'{name}="{value.translate(_ESCAPES)}"') for name, value in sorted(zip(names, values, strict=True))]
    before = "".join(f"{pair}," for name, pair in pairs if name < "le")
    return before, "".join(f",{pair}" for name, pair in pairs if name > "le")


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
