"""The port to the pins of operators."""

from collections.abc import Sequence
from typing import Protocol

from domain.pins import Pin, PinnedImage


class PinIndex(Protocol):
    """The pinned images. It survives restarts, and all workers share it; with replicas, all replicas share it, too.
    The content in the trees of the pinned images is not evicted: see UsageIndex.evictable.

    Unlike everything else in the index, pins cannot be learnt again. So a failure is never taken for "nothing is
    pinned".
    """

    async def all(self) -> Sequence[PinnedImage]:
        """All pinned images, in the order of their keys. Raises StorageFailed if they cannot be read."""

    async def keep(self, image: PinnedImage) -> None:
        """Store the image, in place of the one with the same key. The tree of the replaced one is not protected any
        more, so the caller passes the tree on if its content is to stay. Raises StorageFailed if it is not stored.
        """

    async def update(self, image: PinnedImage) -> None:
        """Store what is known of the image now. Does nothing if it was unpinned or pinned again since its `pinned_at`,
        so that a late update does not bring a pin back. Never raises: the next check updates it again.
        """

    async def forget(self, pin: Pin) -> bool:
        """Remove the pin with the same key. Returns whether there was one. Raises StorageFailed if it is not
        removed.
        """

    async def lead(self, seconds: float) -> bool:
        """Whether the caller checks the pinned images now. No other worker does so for `seconds`; the caller may ask
        again before, to go on. False if another worker does so, or if nobody can know. Two workers at the same time
        would do no damage.
        """
