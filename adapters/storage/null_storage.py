"""The storage while the cache is off: it finds nothing and stores nothing."""
# ruff: noqa: ARG002 - the ports have these arguments

from collections.abc import Sequence

from application.ports.content import Space, StorageFailed, StorageFull, StoredContent
from application.ports.lease import DownloadLease, FollowedPartialBlob
from domain.digest import Digest
from domain.pins import Pin, PinnedImage
from domain.upstreams import Upstream

_OFF = "the cache is off"


class NullContentStore:
    """Implements ContentStore and DownloadLeases."""

    async def open(self, digest: Digest) -> StoredContent | None:
        return None

    async def put(self, digest: Digest, content: bytes) -> None:
        raise StorageFull(_OFF)

    async def lease(
        self, upstream: Upstream, digest: Digest, *, refetch: bool = False
    ) -> DownloadLease | FollowedPartialBlob | None:
        raise StorageFull(_OFF)

    async def drop(self, digest: Digest) -> int:
        return 0


class NullStorageMaintenance:
    """Implements StorageMaintenance."""

    async def space(self) -> Space:
        return Space(0, 0, 0)

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        return 0

    async def contents(self) -> dict[Digest, int]:
        return {}


class NullPinIndex:
    """Implements PinIndex."""

    async def all(self) -> Sequence[PinnedImage]:
        return ()

    async def keep(self, image: PinnedImage) -> None:
        raise StorageFailed(_OFF)

    async def update(self, image: PinnedImage) -> None:
        pass

    async def forget(self, pin: Pin) -> bool:
        return False

    async def lead(self, seconds: float) -> bool:
        return False
