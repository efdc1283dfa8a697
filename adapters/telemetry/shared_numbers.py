"""Numbers in memory that all workers share, and the histograms in it.

The main process creates the memory before it forks the workers. Each worker writes only to its own numbers, so there
are no locks; a worker that replaces a dead one continues them. Every number has 8 bytes, which a processor writes at
once. To count costs a worker a few additions; the sum over all workers is computed when a metric is read.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, product

_BYTES = 8
OTHER = "other"
"""The value of a label for every value that was not known when the memory was created."""


def shared_integers(count: int) -> memoryview[int]:
    """Numbers that are not negative."""
    return _memory(count).cast("Q")


def shared_floats(count: int) -> memoryview[float]:
    return _memory(count).cast("d")


def _memory(count: int) -> memoryview[int]:
    return memoryview(mmap.mmap(-1, max(1, count) * _BYTES))


class SharedHistogram:
    """One histogram of each worker, with one time series for each combination of labels. `labels`: the values of each
    label; `bounds`: the upper bounds of the buckets, in ascending order, without infinity.
    """

    def __init__(self, workers: int, labels: Mapping[str, Sequence[str]], bounds: Sequence[float]) -> None:
        self._workers = workers
        self.bounds = tuple(bounds)
        self._series = {values: index for index, values in enumerate(product(*labels.values()))}
        self._known = [frozenset(values) for values in labels.values()]
        count = workers * len(self._series)
        self._buckets = shared_integers(count * len(self.bounds))
        self._counts = shared_integers(count)
        self._sums = shared_floats(count)

    def place(self, worker: int, values: Iterable[str]) -> int:
        """Where the series with these values of labels is in the memory of the worker. An unknown value counts as
        OTHER.
        """
        known = tuple(value if value in allowed else OTHER for value, allowed in zip(values, self._known, strict=True))
        return worker * len(self._series) + self._series[known]

    def observe(self, place: int, value: float) -> None:
        self.add(place, value, bisect_left(self.bounds, value))

    def add(self, place: int, value: float, bucket: int) -> None:
        """As `observe`. `bucket`: the index of the first bound that is not below the value."""
        if bucket < len(self.bounds):
            self._buckets[place * len(self.bounds) + bucket] += 1
        self._sums[place] += value
        self._counts[place] += 1

    def counts(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """For each series that was observed: the values of its labels, and the number of observations. It costs much
        less than `read`.
        """
        # Most series are empty, so those that are not are found with few operations on all of them.
        size, counts = len(self._series), self._counts.tolist()
        of_workers = [counts[start : start + size] for start in range(0, len(counts), size)]
        return (
            (values, count)
            for values, count in zip(self._series, map(sum, zip(*of_workers, strict=True)), strict=True)
            if count
        )

    def read(
        self, is_chosen: Callable[[tuple[str, ...]], bool] = lambda _: True
    ) -> Iterator[tuple[tuple[str, ...], list[int], int, float]]:
        """For each series that was observed and is chosen by the values of its labels: these values, the numbers in
        each bucket and in those below it, the number of all, and their sum.
        """
        size, width = len(self._series), len(self.bounds)
        for values, _ in self.counts():
            if not is_chosen(values):
                continue
            index = self._series[values]
            places = [place for place in range(index, self._workers * size, size) if self._counts[place]]
            count = sum(self._counts[place] for place in places)
            rows = [self._buckets[place * width : (place + 1) * width].tolist() for place in places]
            cumulated = list(accumulate(map(sum, zip(*rows, strict=True))))
            # A worker may have written to a bucket since the counts were read.
            yield values, cumulated, max(count, cumulated[-1]), sum(self._sums[place] for place in places)
