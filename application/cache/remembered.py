"""A bounded memory in front of something slower."""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Forgets what was longest not looked at. `weight` and `bound` are in the same unit, entries where not said."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._weight = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        self.pop(key)
        self._entries[key] = value, weight
        self._weight += weight
        while self._weight > self._bound:
            self.pop(next(iter(self._entries)))

    def pop(self, key: K) -> None:
        if entry := self._entries.pop(key, None):
            self._weight -= entry[1]

    def clear(self) -> None:
        self._entries.clear()
        self._weight = 0
