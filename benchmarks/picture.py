"""A program that draws the main results as bars. Arguments: the file of the results, the file of the picture.

It runs in the environment of requirements/bench.lock, so it must not import modules that need other packages.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.plan import Plan, blob_case
from benchmarks.results import DIRECT, DISTRIBUTION, NGINX, OURS, REGISTRY, SANIC, SANIC_LOGGING, Results

_COLOURS = {OURS: "#1b6ca8", REGISTRY: "#8c8c8c", DISTRIBUTION: "#8c8c8c", NGINX: "#b5b5b5", DIRECT: "#8c8c8c"}
_OTHER = "#d9d9d9"
_SHORT = {SANIC: "empty Sanic", SANIC_LOGGING: "empty Sanic\nwith access log", DIRECT: "upstream itself"}


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    better: str
    scenario: str
    case: str
    metric: str
    digits: int = 2


def panels(plan: Plan) -> list[Panel]:
    four, one, fifty = blob_case(plan.big, 4), blob_case(plan.big, 1), blob_case(plan.small, 50)
    crowd = f"{blob_case(plan.big, plan.crowd)}, cold"
    layers = "layers of an image, one after another, 1 client"
    narrow = blob_case(plan.small, 1)
    slow = f"Fast client beside {plan.slow_clients:,} slow ones"
    return [
        Panel(f"Warm blob: {four}", "GiB/s", "more", "warm blobs", four, "throughput"),
        Panel(f"Warm blob: {four}", "CPU-s per GiB", "less", "warm blobs", four, "cpu"),
        Panel("Warm manifest by tag", "requests/s", "more", "warm manifests", "by tag", "rate", 0),
        Panel(f"Cold blob: {one}", "GiB/s", "more", "cold blobs", one, "throughput"),
        Panel("Cold blob: layers of an image", "ms to the first byte", "less", "cold blobs", layers, "first_byte", 1),
        Panel(f"Cold blob: {fifty}", "MiB from the upstream", "less", "cold blobs", fifty, "upstream", 0),
        Panel(f"Cold blob over TLS: {one}", "GiB/s", "more", "cold blobs over TLS", one, "throughput"),
        Panel(f"5 MB/s per connection: {narrow}", "MB/s", "more", "limited connections", narrow, "rate", 1),
        Panel(f"Warm blob over TLS: {four}", "GiB/s", "more", "warm blobs over TLS", four, "throughput"),
        Panel(f"Peak memory: {crowd}", "MiB", "less", "peak memory", crowd, "peak", 0),
        Panel(slow, "GiB/s", "more", "slow clients", "beside the slow ones", "throughput"),
        Panel("docker pull of four layers", "seconds", "less", "docker pull", "the image of four layers", "seconds"),
    ]


def draw_panel(axes: Axes, panel: Panel, results: Results) -> None:
    servers = results.cases(panel.scenario).get(panel.case, [])
    values = [results.median(panel.scenario, panel.case, server, panel.metric) or 0 for server in servers]
    names = [_SHORT.get(server, server.replace(", ", ",\n")) for server in servers]
    colours = [_COLOURS.get(server.partition(",")[0], _OTHER) for server in servers]
    bars = axes.barh(names, values, color=colours, height=0.62)
    axes.bar_label(bars, [f"{value:,.{panel.digits}f}" for value in values], padding=4, fontsize=9)
    axes.set_title(panel.title, fontsize=10.5, loc="left", fontweight="bold")
    axes.set_xlabel(f"{panel.unit} ({panel.better} is better)", fontsize=9)
    axes.set_xlim(0, (max(values, default=0) or 1) * 1.25)  # space for the numbers beside the bars
    axes.invert_yaxis()
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if not servers:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="#8c8c8c")


def main(data: Path, picture: Path) -> None:
    results = Results.load(data)
    mpl.use("Agg")
    figure, grid = plt.subplots(4, 3, figsize=(14, 11.4), dpi=110, layout="constrained")
    for axes, panel in zip(grid.flat, panels(results.plan), strict=True):
        draw_panel(axes, panel, results)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    figure.savefig(picture, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
