"""Simulates 1 to 100 replicas with and without the shared tier, from measured parameters and stated assumptions.

    .venv/bin/python -m benchmarks.replicas [--set NAME=VALUE ...]

prints the tables of docs/guides/several-machines.md, which `scripts/docs --write` writes there. `--set` replaces a
parameter, such as `upstream_rate=0.1`. Equal parameters give equal tables, because the random numbers have fixed seeds.
"""

import argparse
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, chain, pairwise
from typing import TypeVar

from domain.part_layout import MIB, part_size

GIB = 1024 * MIB
REPLICAS = (1, 2, 4, 8, 16, 32, 64, 100)
PRICES_OF = "2026-11-28"
_MONTH_HOURS = 730
_DAYS_OF_MONTH = 30
_PB = 10**15


def given(default: float, unit: str, meaning: str) -> float:
    """A parameter. `meaning` ends with its source in brackets; without one it is an assumption."""
    value: float = field(default=default, metadata={"unit": unit, "meaning": meaning})
    return value


@dataclass(frozen=True)
class Parameters:
    """What the simulation starts from. Rates are GiB/s, times seconds, CPU seconds per GiB."""

    warm_cpu: float = given(0.26, "CPU-s/GiB", "sending cached content (BENCHMARKS.md, warm blobs)")
    fetch_cpu: float = given(
        2.87, "CPU-s/GiB", "receiving, hashing and storing (BENCHMARKS.md, cold blobs minus warm blobs)"
    )
    put_cpu: float = given(1.25, "CPU-s/GiB", "writing parts to the store (obstore 0.12 with SeaweedFS)")
    get_cpu: float = given(1.35, "CPU-s/GiB", "reading parts from the store (obstore 0.12 with SeaweedFS)")
    fetch_rate: float = given(0.38, "GiB/s", "one download of one replica (BENCHMARKS.md, cold blobs)")
    look: float = given(0.02, "s", "interval at which a replica looks for new parts (application/blobs/origins.py)")
    parts_ahead: float = given(4, "", "parts that a replica reads at the same time (application/blobs/origins.py)")
    uploads: float = given(
        4, "", "parts of a blob that are written at the same time (application/blobs/part_publisher.py)"
    )
    cores: float = given(4, "", "cores of a replica")
    line: float = given(1.16, "GiB/s", "network of a replica in each direction, 10 Gbit/s")
    upstream_rate: float = given(1.16, "GiB/s", "the line to the upstreams, which all replicas share, 10 Gbit/s")
    store_rate: float = given(0.08, "GiB/s", "one request to the store (guidelines of S3: 85 to 90 MB/s)")
    store_line: float = given(11.6, "GiB/s", "all requests to the store together, 100 Gbit/s")
    store_latency: float = given(
        0.1, "s", "time to the first byte of a request to the store (guidelines of S3: 100 to 200 ms)"
    )
    blob: float = given(1, "GiB", "the layer that all replicas request at the same moment")
    image: float = given(0.25, "GiB", "size of an image")
    images: float = given(2000, "", "images that clients use")
    skew: float = given(0.9, "", "exponent of Zipf's law: how often the images are pulled")
    rebuilt: float = given(7, "days", "after this time an image is replaced by a new one")
    pulls: float = given(1000, "", "images that the clients of each replica pull in a day")
    days: float = given(4, "", "simulated days; the second half is counted")
    cache: float = given(200, "GiB", "CACHE_SIZE of each replica")
    shared: float = given(2048, "GiB", "SHARED_SIZE")


@dataclass(frozen=True)
class Prices:
    """List prices in US dollars."""

    replicas: float = given(10, "", "replicas that deliver the petabyte")
    replica_hour: float = given(0.145, "$/hour", "a machine for a replica (EC2 c7g.xlarge)")
    disk: float = given(0.08, "$/GB-month", "disk of a replica (EBS gp3)")
    gateway: float = given(0.045, "$/GB", "bytes from upstreams (NAT gateway)")
    stored: float = given(0.023, "$/GB-month", "stored bytes (S3 Standard)")
    put: float = given(0.005, "$/1,000", "writes of parts and records (S3 Standard)")
    get: float = given(0.0004, "$/1,000", "reads of parts and records (S3 Standard)")
    index_hour: float = given(0.2528, "$/hour", "Valkey with a standby (ElastiCache, 2 x cache.m7g.large)")
    zone: float = given(0.02, "$/GB", "bytes to a client in another zone (EC2, both directions)")


# --- all replicas request one new blob at the same moment ---


@dataclass(frozen=True)
class Burst:
    """`seconds`: until the last replica has the whole blob. `upstream`: GiB that the upstream sent."""

    seconds: float
    upstream: float


def burst_alone(p: Parameters, replicas: int) -> Burst:
    """Each replica fetches the blob, and the line to the upstream is divided among them."""
    return Burst(p.blob / min(p.fetch_rate, p.upstream_rate / replicas), p.blob * replicas)


def burst_shared(p: Parameters, replicas: int) -> Burst:
    """One replica fetches the blob and publishes its parts; the others read them as they appear."""
    fetching = min(p.fetch_rate, p.upstream_rate)
    if replicas == 1:
        return Burst(p.blob / fetching, p.blob)
    reading = min(p.store_rate, p.store_line / (replicas - 1) / p.parts_ahead)
    written, read = [0.0] * int(p.uploads), [0.0] * int(p.parts_ahead)
    for start, stop in parts(round(p.blob * GIB)):
        size = (stop - start) / GIB
        # Parts are written and read in their order, each as soon as one of the requests before it has ended.
        begin = max(stop / GIB / fetching, written[0])
        written = sorted([*written[1:], max(written[-1], begin + p.store_latency + size / p.store_rate)])
        begin = max(written[-1] + p.look, read[0])
        read = sorted([*read[1:], begin + p.store_latency + size / reading])
    return Burst(read[-1], p.blob)


def parts(size: int) -> Iterator[tuple[int, int]]:
    """The first byte of each part of a blob, and the byte after its last."""
    starts = [0]
    while starts[-1] < size:
        starts.append(min(starts[-1] + part_size(starts[-1]), size))
    return pairwise(starts)


# --- many images over some days ---


class Lru:
    """A cache of a number of images, without the least recently used."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: OrderedDict[tuple[int, int], None] = OrderedDict()

    def holds(self, item: tuple[int, int]) -> bool:
        """Whether the item is in the cache. It is there afterwards."""
        if item in self._items:
            self._items.move_to_end(item)
            return True
        self._items[item] = None
        if len(self._items) > self._room:
            self._items.popitem(last=False)
        return False


@dataclass(frozen=True)
class Shares:
    """Bytes relative to those that clients receive: from the upstream, and from the store."""

    upstream: float
    store: float = 0.0


Miss = tuple[int, tuple[int, int]]
"""The number of the request among those of its replica, and the image."""


def local_misses(p: Parameters, replica: int) -> list[Miss]:
    """The requests that the cache of this replica cannot answer, in their order."""
    weights = list(accumulate((rank + 1) ** -p.skew for rank in range(int(p.images))))
    count = round(p.pulls * p.days)
    ranks = random.Random(replica).choices(range(int(p.images)), cum_weights=weights, k=count)  # noqa: S311 - no secret
    cache = Lru(int(p.cache / p.image))
    return [(number, image) for number, image in enumerate(versions(p, ranks)) if not cache.holds(image)]


def versions(p: Parameters, ranks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The image of each request: its rank, and how often it was rebuilt. Images are rebuilt at different times."""
    lifetime = p.rebuilt * p.pulls
    for number, rank in enumerate(ranks):
        yield rank, int((number + lifetime * rank * 0.618) // lifetime)


def shares(p: Parameters, misses: Sequence[Sequence[Miss]]) -> tuple[Shares, Shares]:
    """The shares of the second half of the days, without and with the shared tier. `misses`: those of each replica."""
    each = round(p.pulls * p.days)
    half = each // 2
    requests = len(misses) * (each - half)
    store = Lru(int(p.shared / p.image))
    all_misses = sorted(chain.from_iterable(misses), key=lambda miss: miss[0])
    found = [(number, store.holds(image)) for number, image in all_misses]
    counted = [held for number, held in found if number >= half]
    return Shares(len(counted) / requests), Shares(counted.count(False) / requests, counted.count(True) / requests)


def throughput(p: Parameters, replicas: int, one: Shares, *, is_shared: bool) -> float:
    """GiB/s that all replicas together send to clients: as much as the first of their limits allows."""
    cpu = p.warm_cpu + one.upstream * p.fetch_cpu + one.store * (p.fetch_cpu + p.get_cpu)
    cpu += one.upstream * p.put_cpu if is_shared else 0
    sent = 1 + (one.upstream if is_shared else 0)
    limits = [
        p.cores / cpu * replicas,
        p.line / sent * replicas,
        *([p.upstream_rate / one.upstream] if one.upstream else []),
        *([p.store_line / one.store] if one.store else []),
    ]
    return min(limits)


# --- the costs of a petabyte ---


def costs(p: Parameters, prices: Prices) -> dict[str, tuple[float, float]]:
    """Dollars a month for one petabyte to clients, without and with the shared tier."""
    count, gb = int(prices.replicas), _PB / 10**9
    p = replace(p, pulls=_PB / (_DAYS_OF_MONTH * count * p.image * GIB))
    alone, shared = shares(p, [local_misses(p, replica) for replica in range(count)])
    parts_of_image = len(list(parts(round(p.image * GIB)))) + 1
    images = _PB / (p.image * GIB)
    requests = images * parts_of_image * (shared.upstream * prices.put + shared.store * prices.get) / 1000
    machines = count * prices.replica_hour * _MONTH_HOURS
    disks = count * p.cache * GIB / 10**9 * prices.disk
    return {
        "machines": (machines, machines),
        "disks of the replicas": (disks, disks),
        "bytes from upstreams": (alone.upstream * gb * prices.gateway, shared.upstream * gb * prices.gateway),
        "stored bytes": (0, p.shared * GIB / 10**9 * prices.stored),
        "requests to the store": (0, requests),
        "Valkey": (0, prices.index_hour * _MONTH_HOURS),
    }


# --- the tables ---


def parameters_text(p: Parameters, prices: Prices) -> str:
    rows = [
        [f"`{one.name}`", f"{getattr(values, one.name):g} {one.metadata['unit']}".strip(), one.metadata["meaning"]]
        for values in (p, prices)
        for one in fields(values)
    ]
    return _table(["Parameter", "Value", "Meaning"], rows)


def replicas_text(p: Parameters) -> str:
    misses = [local_misses(p, replica) for replica in range(max(REPLICAS))]
    rows = []
    for count in REPLICAS:
        alone, shared = shares(p, misses[:count])
        first, second = burst_alone(p, count), burst_shared(p, count)
        sent = throughput(p, count, alone, is_shared=False), throughput(p, count, shared, is_shared=True)
        rows.append(
            [
                str(count),
                f"{first.seconds:.1f} / {second.seconds:.1f}",
                f"{first.upstream:g} / {second.upstream:g}",
                f"{sent[0]:.1f} / {sent[1]:.1f}",
                f"{100 * alone.upstream:.1f} / {100 * shared.upstream:.1f}",
            ]
        )
    headings = [
        "Replicas",
        "Layer: seconds",
        "Layer: GiB from the upstream",
        "Images: GiB/s",
        "Images: % from upstreams",
    ]
    return _table(headings, rows, numbers_from=0)


def costs_text(p: Parameters, prices: Prices) -> str:
    """The costs with the given caches, and with caches that hold all images."""
    large = replace(p, cache=1.5 * p.images * p.image)
    found = [costs(one, prices) for one in (p, large)]
    rows = [[name, *(f"{value:,.0f}" for each in found for value in each[name])] for name in found[0]]
    totals = [sum(column) for each in found for column in zip(*each.values(), strict=True)]
    zones = f"{2 / 3 * _PB / 10**9 * prices.zone:,.0f}"
    headings = [
        f"Dollars a month, prices of {PRICES_OF}",
        *(f"caches of {one.cache:,.0f} GiB, {kind}" for one in (p, large) for kind in ("alone", "shared")),
    ]
    rows += [["**together**", *(f"**{total:,.0f}**" for total in totals)], ["clients in other zones", *[zones] * 4]]
    return _table(headings, rows, numbers_from=1)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 99) -> str:
    marks = ["---" if number < numbers_from else "--:" for number in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, marks, *rows))


Values = TypeVar("Values", Parameters, Prices)


def changed(values: Values, texts: Mapping[str, str]) -> Values:
    """The values with those of `texts` in place of theirs. Raises ValueError if a text is not a number."""
    names = {one.name for one in fields(values)}
    return replace(values, **{name: float(text) for name, text in texts.items() if name in names})


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="replace a parameter")
    texts = dict(text.partition("=")[::2] for text in parser.parse_args(argv).set)
    known = {one.name for kind in (Parameters, Prices) for one in fields(kind)}
    if unknown := sorted(texts.keys() - known):
        parser.error(f"no such parameter: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    try:
        p, prices = changed(Parameters(), texts), changed(Prices(), texts)
    except ValueError as error:
        parser.error(str(error))
    print("\n\n".join([replicas_text(p), costs_text(p, prices), parameters_text(p, prices)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
