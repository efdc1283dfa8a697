"""The pinned images, in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from application.ports.content import StorageFailed
from application.ports.shared import SharedUnavailable
from domain.digest import Digest
from domain.pins import Pin, PinnedImage, content_of
from domain.ports import Clock
from tests.fakes.clock import StoppedClock


@dataclass
class Lead:
    """Who checks the pinned images, and until when."""

    holder: object = None
    until: float = 0.0


@dataclass(eq=False)
class MemoryPinIndex:
    """Implements PinIndex and SharedPins. `is_broken`: it can be neither read nor written; `is_new`: replicas may still
    write their pins to it.
    """

    clock: Clock = field(default_factory=StoppedClock)
    is_broken: bool = False
    is_new: bool = False
    pins: dict[tuple[str, str, str], PinnedImage] = field(default_factory=dict)
    leader: Lead = field(default_factory=Lead)

    def of_another_worker(self) -> "MemoryPinIndex":
        """What another worker uses at the same time."""
        return replace(self)

    @property
    def content(self) -> frozenset[Digest]:
        """Everything that pinned images need."""
        return content_of(self.pins.values())

    async def all(self) -> Sequence[PinnedImage]:
        self._work()
        return [self.pins[key] for key in sorted(self.pins)]

    async def keep(self, image: PinnedImage) -> None:
        self._work()
        self.pins[image.pin.key] = image

    async def update(self, image: PinnedImage) -> None:
        known = self.pins.get(image.pin.key)
        if known and known.pinned_at == image.pinned_at and not self.is_broken:
            self.pins[image.pin.key] = image

    async def forget(self, pin: Pin) -> bool:
        self._work()
        return self.pins.pop(pin.key, None) is not None

    async def lead(self, seconds: float) -> bool:
        now = self.clock.now()
        if self.is_broken or (self.leader.holder not in {None, self} and now < self.leader.until):
            return False
        self.leader.holder, self.leader.until = self, now + seconds
        return True

    async def protected(self) -> frozenset[Digest]:
        await asyncio.sleep(0)
        if self.is_broken or self.is_new:
            raise SharedUnavailable("the fake pins cannot be known")
        return self.content

    def _work(self) -> None:
        if self.is_broken:
            raise StorageFailed("the fake pins are broken")
