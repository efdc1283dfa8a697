"""What stands where storage would, when there is none: finds nothing and keeps nothing."""
# ruff: noqa: ARG002 - the ports have these arguments; here nothing is done with any of them

from collections.abc import Iterable, Mapping

from application.ports.content import FollowedPartialBlob, PartialBlob, Space, StorageFull, StoredContent
from application.ports.index import CallerIdentity, Used
from domain.digest import Digest
from domain.names import Tag
from domain.records import CachedTag, CallerClass, CallerId, Grant, Item, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream

_OFF = "the cache is off"


class NullContentStore:
    """Plays the ContentStore."""

    async def open(self, digest: Digest) -> StoredContent | None:
        return None

    async def put(self, digest: Digest, content: bytes) -> None:
        raise StorageFull(_OFF)

    async def lease(
        self, upstream: Upstream, digest: Digest, *, anew: bool = False
    ) -> PartialBlob | FollowedPartialBlob | None:
        raise StorageFull(_OFF)

    async def drop(self, digest: Digest) -> int:
        return 0


class NullStorageMaintenance:
    """Plays the StorageMaintenance."""

    async def space(self) -> Space:
        return Space(0, 0, 0)

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        return 0

    async def contents(self) -> dict[Digest, int]:
        return {}


class NullLinkIndex:
    """Plays the LinkIndex."""

    async def find(self, item: Item) -> Link | None:
        return None

    async def keep(self, link: Link, now: float) -> None:
        return

    async def forget(self, item: Item, from_class: CallerClass | None = None) -> None:
        return

    async def of(self, source: Source) -> list[Link]:
        return []


class NullSentContent:
    """Plays the SentContent."""

    async def keep(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        return

    async def serves(self, upstream: Upstream, digest: Digest) -> bool:
        return False


class NullTagIndex:
    """Plays the TagIndex."""

    async def variants(self, source: Source, tag: Tag) -> list[CachedTag]:
        return []

    async def keep(self, cached_tag: CachedTag) -> None:
        return

    async def forget(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        return

    async def of(self, upstream: Upstream) -> list[CachedTag]:
        return []


class NullContentPlaces:
    """Plays the ContentPlaces."""

    async def forget(self, digests: Iterable[Digest]) -> None:
        return


class NullGrantStore:
    """Plays the GrantStore."""

    async def find(self, caller: CallerId, source: Source) -> Grant | None:
        return None

    async def keep(self, grant: Grant, until: float) -> None:
        return

    async def forget(self, caller: CallerId, source: Source) -> None:
        return


class NullTokenStore:
    """Plays the TokenStore."""

    async def find(self, fingerprint: str) -> CallerIdentity | None:
        return None

    async def keep(self, fingerprint: str, identity: CallerIdentity) -> None:
        return


class NullUpstreamAuthStore:
    """Plays the UpstreamAuthStore."""

    async def find(self, upstream: Upstream) -> UpstreamAuth | None:
        return None

    async def keep(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        return


class NullUsageIndex:
    """Plays the UsageIndex and the UsageTotal."""

    async def keep(self, entries: list[Used]) -> None:
        return

    async def touch(self, times: Mapping[Digest, float]) -> None:
        return

    async def forget(self, digests: list[Digest]) -> None:
        return

    async def all(self) -> list[Used]:
        return []

    async def total(self) -> int:
        return 0


class NullEpoch:
    """Plays the Epoch."""

    async def read(self) -> int:
        return 0

    async def advance(self) -> None:
        return
