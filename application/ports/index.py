"""The ports to the index: what upstreams have said, and what is stored."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from domain.digest import Digest
from domain.names import Tag
from domain.records import CachedTag, CallerClass, CallerId, ContentLocation, Grant, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream


@dataclass(frozen=True)
class CallerIdentity:
    """Who calls, and until when the login or token of the caller is valid, in seconds since 1970."""

    caller: CallerId
    ends_at: float


class KnowledgeIndex(Protocol):
    """What upstreams have said: which content is in which repository, what tags mean, who may read what, and how each
    upstream authenticates. Kept across restarts and shared by all workers. All of it can be learnt again, so no method
    fails because the index cannot be read or written, except `advance_epoch`.

    An upstream is known by its URL, a repository by its name. Links and cached tags are bounded in number for each
    upstream: where there are too many, those without stored content go first, then the oldest.
    """

    async def find_link(self, location: ContentLocation) -> Link | None:
        """The link with all classes of callers that the content was given to, as the upstream described it last."""
        ...

    async def links_of(self, source: Source) -> list[Link]:
        """All links of a repository."""
        ...

    async def keep_link(self, link: Link, now: float) -> None:
        """Adds the link's classes to those that are known; `now` in seconds since 1970."""
        ...

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        """For this class of callers, to which the upstream refused the content; None is for all classes."""
        ...

    async def find_tags(self, source: Source, tag: Tag) -> list[CachedTag]:
        """All variants of one tag, in any order."""
        ...

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        """All cached tags of all repositories of the upstream."""
        ...

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        """Replaces the one with the same key and class. A tag has a bounded number of variants for each class of
        callers; the oldest are removed.
        """
        ...

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        """All variants of the tag, or of all tags of the repository; of this class of callers, or of all for None."""
        ...

    async def was_sent(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether this upstream has sent the content in full, or any upstream has sent it in full to an anonymous
        caller.
        """
        ...

    async def keep_sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        """The upstream has sent all bytes of the content, and they were right. `is_public`: to an anonymous caller."""
        ...

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        """The content is not stored any more: removes all links and cached tags that lead to it, and the record of
        which upstream sent it.
        """
        ...

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        """The last grant, ended or not."""
        ...

    async def keep_grant(self, grant: Grant, until: float) -> None:
        """Replaces the caller's grant for the source. After `until` (seconds since 1970) it may be removed."""
        ...

    async def forget_grant(self, caller: CallerId, source: Source) -> None: ...

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        """Whose a token is that an upstream gave through us. The index knows fingerprints of tokens, never a token."""
        ...

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None: ...

    async def find_upstream_auth(self, upstream: Upstream) -> UpstreamAuth | None:
        """How the upstream authenticated when it last answered. A mirror starts even if its upstream is gone."""
        ...

    async def keep_upstream_auth(self, upstream: Upstream, auth: UpstreamAuth) -> None: ...

    async def epoch(self) -> int:
        """A number that changes when an operator has removed something. A worker then drops what it remembers of the
        index. While the number cannot be read, the last one that could.
        """
        ...

    async def advance_epoch(self) -> None:
        """Change the number. Raises StorageFailed when it cannot be written: then workers go on as before."""
        ...


@dataclass(frozen=True)
class Used:
    """One piece of content. `size` in bytes, `used_at` in seconds since 1970."""

    digest: Digest
    size: int
    used_at: float


class UsageIndex(Protocol):
    """What is stored here, by digest, and when it was last used. Kept across restarts and shared by all workers."""

    async def keep(self, entries: list[Used]) -> None:
        """Adds what is new and replaces what is known."""
        ...

    async def touch(self, times: Mapping[Digest, float]) -> None:
        """Content that was used, and when; unknown content stays unknown."""
        ...

    async def forget(self, digests: list[Digest]) -> None: ...

    async def all(self) -> list[Used]:
        """Least recently used first."""
        ...

    async def total(self) -> int:
        """Bytes of all that is stored. Asked much more often than the whole list."""
        ...
