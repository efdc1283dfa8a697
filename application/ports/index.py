"""The ports to the index: what upstreams said, and what is stored."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from domain.digest import Digest
from domain.names import Tag
from domain.records import CachedTag, CallerClass, CallerId, Grant, Item, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream


class LinkIndex(Protocol):
    """Links, kept across restarts and shared by all workers; a bounded number for each upstream."""

    async def find(self, item: Item) -> Link | None:
        """The link with all classes of callers that the item was given to, by the newest word of the upstream."""
        ...

    async def keep(self, link: Link, now: float) -> None:
        """Adds the link's classes to those that are known; `now` in seconds since 1970. Where an upstream has too
        many links, those without stored content go first, then the oldest.
        """
        ...

    async def forget(self, item: Item, from_class: CallerClass | None = None) -> None:
        """For this class of callers, to which the upstream refused it; None is for all. Nothing happens where there is
        none.
        """
        ...

    async def of(self, source: Source) -> list[Link]:
        """All links of a repository."""
        ...


class TagIndex(Protocol):
    """Marks, kept across restarts and shared by all workers. Their number is bounded: of variants for each tag and
    class of callers, and of marks for each upstream.
    """

    async def variants(self, source: Source, tag: Tag) -> list[CachedTag]:
        """All marks of one tag, in any order."""
        ...

    async def keep(self, cached_tag: CachedTag) -> None:
        """Replaces the mark of the same key and class. The oldest variants of the tag make room, and where an upstream
        has too many marks, those without stored content, then the oldest.
        """
        ...

    async def forget(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        """All variants of the tag, or of all tags of the repository; of this class of callers, or of all for None."""
        ...

    async def of(self, upstream: Upstream) -> list[CachedTag]:
        """All marks of all its repositories."""
        ...


class SentContent(Protocol):
    """Kept across restarts and shared by all workers, for as long as the content is stored."""

    async def keep(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        """All bytes of the content came from this upstream and were right. `is_public`: to an anonymous caller."""
        ...

    async def serves(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether this upstream has sent the content in full, or any upstream has sent it in full to an anonymous
        caller.
        """
        ...


class ContentPlaces(Protocol):
    """The same links and tags as LinkIndex and TagIndex have, of all upstreams and repositories."""

    async def forget(self, digests: Iterable[Digest]) -> None:
        """Removes all links and cached tags that lead to this content, and the record of which upstream sent it
        (SentContent); it is not stored any more.
        """
        ...


class GrantStore(Protocol):
    """Grants, kept across restarts and shared by all workers."""

    async def find(self, caller: CallerId, source: Source) -> Grant | None:
        """The last grant, ended or not."""
        ...

    async def keep(self, grant: Grant, until: float) -> None:
        """Replaces the caller's grant for the source. After `until` (seconds since 1970) it may be thrown away."""
        ...

    async def forget(self, caller: CallerId, source: Source) -> None:
        """Nothing happens where there is none."""
        ...


@dataclass(frozen=True)
class CallerIdentity:
    """Who calls, and until when what they showed is good, in seconds since 1970."""

    caller: CallerId
    ends_at: float


class TokenStore(Protocol):
    """Knows fingerprints of tokens; never a token."""

    async def find(self, fingerprint: str) -> CallerIdentity | None: ...

    async def keep(self, fingerprint: str, identity: CallerIdentity) -> None: ...


class UpstreamAuthStore(Protocol):
    """Stances, kept across restarts: a mirror starts though its upstream is gone."""

    async def find(self, upstream: Upstream) -> UpstreamAuth | None: ...

    async def keep(self, upstream: Upstream, auth: UpstreamAuth) -> None: ...


@dataclass(frozen=True)
class Used:
    """One piece of content. `size` in bytes, `used_at` in seconds since 1970."""

    digest: Digest
    size: int
    used_at: float


class UsageIndex(Protocol):
    """What is stored, by digest; kept across restarts and shared by all workers."""

    async def keep(self, entries: list[Used]) -> None:
        """Adds what is new and replaces what is known."""
        ...

    async def touch(self, times: Mapping[Digest, float]) -> None:
        """Content that was used, and when; what is not known stays unknown."""
        ...

    async def forget(self, digests: list[Digest]) -> None: ...

    async def all(self) -> list[Used]:
        """Least recently used first."""
        ...


class UsageTotal(Protocol):
    """Asked much more often than the whole list."""

    async def total(self) -> int:
        """Bytes of all that is stored."""
        ...


class Epoch(Protocol):
    """Whoever remembers what the storage said drops it when the number is another than before."""

    async def read(self) -> int:
        """The number now; where it cannot be had, the last one that could."""
        ...

    async def advance(self) -> None:
        """Make it another one. Raises StorageFailed when it cannot be written: then workers go on as before."""
        ...
