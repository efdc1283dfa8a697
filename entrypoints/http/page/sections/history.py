"""History: hit ratio, bytes, latencies and errors of the last hour, day or week, as charts and as a table."""

from collections.abc import Callable

from domain.history import SPANS, Bucket, Totals
from domain.value import Value
from entrypoints.http.page.section import Context, PageRequest, Section, View

_DEFAULT = "hour"
_DIGITS = 4
"""Of a ratio or a latency, which is more than the pixels of a chart can show."""
_Value = Callable[[Totals], float | None]


class Chart(Value, frozen=True):
    """`unit`: how the script writes a value: "share", "bytes", "seconds" or "count"; `series`: the key of the text of
    each line, and its value in each bucket.
    """

    name: str
    unit: str
    series: dict[str, list[float | None]]


CHARTS: dict[str, tuple[str, dict[str, _Value]]] = {
    "hits": ("share", {"hit_ratio": lambda totals: _rounded(totals.hit_ratio)}),
    "bytes": ("bytes", {"bytes_out": lambda totals: totals.bytes_out, "bytes_in": lambda totals: totals.bytes_in}),
    "latency": (
        "seconds",
        {"p50": lambda totals: _rounded(totals.latency(0.5)), "p99": lambda totals: _rounded(totals.latency(0.99))},
    ),
    "errors": (
        "count",
        {
            "upstream_faults": lambda totals: totals.upstream_faults,
            "mirror_faults": lambda totals: totals.mirror_faults,
            "client_left": lambda totals: totals.client_left,
            "refused": lambda totals: totals.refused,
        },
    ),
}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _charts(buckets: list[Bucket]) -> list[Chart]:
    return [
        Chart(name, unit, {key: [value(bucket.totals) for bucket in buckets] for key, value in series.items()})
        for name, (unit, series) in CHARTS.items()
    ]


async def _page(page: PageRequest) -> Context:
    name = page.argument("range")
    chosen = name if name in SPANS else _DEFAULT
    history = page.container.read_history()
    report, today = history.over(SPANS[chosen]), history.today()
    return {"report": report, "today": today, "charts": _charts(report.buckets), "spans": SPANS, "chosen": chosen}


HISTORY = Section("history", (View("/history", "history/page.html", _page),))
