"""The pinned images on two levels: in the index of all replicas, and in that of this replica."""

from collections.abc import Sequence
from contextlib import suppress

from adapters.shared.redis_pins import RedisPins
from application.ports.content import StorageFailed
from application.ports.pins import PinIndex
from application.ports.shared import SharedUnavailable
from domain.pins import Pin, PinnedImage


class TwoLevelPinIndex:
    """Implements PinIndex. The shared level decides; `all` brings the local one up to date, which the eviction of this
    replica reads.

    Redis may lose everything at any time, and pins cannot be learnt again. So a pin that is missing there was not
    unpinned, which leaves a record: each replica writes back what is missing. If Redis loses both a pin and the record
    that it was unpinned, a replica that was away since before pins the image again.

    While the shared level cannot be asked, images can be neither pinned nor unpinned, and each replica checks the
    pinned images for itself.
    """

    def __init__(self, shared: RedisPins, local: PinIndex | None) -> None:
        """`local`: None on a machine that is no replica."""
        self._shared = shared
        self._local = local

    async def all(self) -> Sequence[PinnedImage]:
        local = await self._local.all() if self._local else ()
        try:
            found = await self._shared.read()
            missing = [image for image in local if image.pin.key not in found.keys]
            if missing or found.is_empty:
                await self._shared.add(missing)
                found = await self._shared.read()
        except SharedUnavailable:
            return local
        if self._local:
            copies = {image.pin.key: image for image in local}
            for image in found.images:
                if copies.get(image.pin.key) != image:
                    await self._local.keep(image)
            for image in local:
                if image.pin.key in found.unpinned:
                    await self._local.forget(image.pin)
        return found.images

    async def keep(self, image: PinnedImage) -> None:
        try:
            await self._shared.keep(image)
        except SharedUnavailable as error:
            raise StorageFailed(f"the other replicas were not told: {error}") from error
        if self._local:
            await self._local.keep(image)

    async def update(self, image: PinnedImage) -> None:
        with suppress(SharedUnavailable):
            await self._shared.update(image)
        if self._local:
            await self._local.update(image)

    async def forget(self, pin: Pin) -> bool:
        await self.all()  # so that the shared level knows of a pin that it has lost
        try:
            was_pinned = await self._shared.forget(pin)
        except SharedUnavailable as error:
            raise StorageFailed(f"the other replicas were not told: {error}") from error
        if self._local:
            await self._local.forget(pin)
        return was_pinned

    async def lead(self, seconds: float) -> bool:
        try:
            return await self._shared.lead(seconds)
        except SharedUnavailable:
            return self._local is not None and await self._local.lead(seconds)
