"""The ports to the index: what the mirror has learnt from upstreams, and what it stores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from domain.digest import Digest
from domain.names import RepositoryName, Tag
from domain.records import CachedTag, CallerClass, CallerId, ContentLocation, Grant, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream
from domain.value import Value

BELIEVED_SECONDS = 5.0
"""How long a worker uses what it has read from the index; later another worker or replica may have changed it."""


@dataclass(frozen=True)
class CallerIdentity:
    """The caller, and the time at which the login or token of the caller ends, in seconds since 1970."""

    caller: CallerId
    ends_at: float


class KnowledgeIndex(Protocol):
    """What the mirror has learnt from upstreams: which repository contains which content, the digests of tags, grants,
    and how each upstream authenticates. It survives restarts, and all workers share it. Everything in it can be learnt
    again. So a method whose read or write fails behaves as if the index were empty, and only `advance_epoch` raises.

    With replicas, all replicas share it, too. Each one also keeps what it has learnt itself, in case the shared index
    is lost.

    An upstream is identified by its URL, a repository by its name. The number of links and cached tags of each upstream
    is limited: beyond the limit, the oldest are removed. An index that knows which content is stored removes entries
    without stored content first.
    """

    def age(self, subject: Source | str) -> float:
        """How old the next answer about this repository, or about the token with this fingerprint, may be: seconds,
        less than BELIEVED_SECONDS. 0 if it is read from the index.
        """

    async def find_link(self, location: ContentLocation, since: float = 0.0) -> Link | None:
        """The link with the last known metadata, and with all caller classes to which the upstream gave the content
        after `since` (seconds since 1970).
        """

    async def links_of(self, source: Source) -> list[Link]:
        """All links of the repository."""

    async def keep_link(self, link: Link, now: float) -> None:
        """Store the link. Caller classes that are already stored for it are kept. `now`: seconds since 1970."""

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        """Remove this caller class from the link, because the upstream refused the content to it. None removes the
        link.
        """

    async def find_tags(self, source: Source, tag: Tag, *, latest: bool = False) -> list[CachedTag]:
        """All variants of the tag, in any order. `latest`: read from the index, whatever `age` says."""

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        """The cached tags of all repositories of the upstream."""

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        """Store the cached tag in place of the one with the same key and caller class. The number of variants of a tag
        is limited for each caller class; the oldest are removed.
        """

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        """Remove all variants of the tag. Without a tag: of all tags of the repository. With `from_class`: only what
        was given to this caller class.
        """

    async def was_sent(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether this upstream has sent all bytes of the content, or any upstream has sent all of them as public
        content.
        """

    async def keep_sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        """Store that the upstream has sent all bytes of the content, and that the digest was right. `is_public`: the
        upstream sent them as public content.
        """

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        """Remove all links and cached tags of content that this replica no longer stores, and the record of the
        upstreams that sent it. What replicas share stays: see SharedKnowledge.
        """

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        """The last grant, which may have ended."""

    async def keep_grant(self, grant: Grant, until: float) -> None:
        """Store the grant in place of the caller's last grant for the source. It may be removed after `until` (seconds
        since 1970).
        """

    async def forget_grant(self, caller: CallerId, source: Source) -> None: ...

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        """The caller for whom the mirror got this token from the upstream. The index contains only fingerprints of
        tokens.
        """

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None: ...

    async def find_upstream_auth(self, upstream: Upstream) -> UpstreamAuth | None:
        """How the upstream authenticated when it last answered. The mirror needs it if it starts during an outage."""

    async def keep_upstream_auth(self, upstream: Upstream, auth: UpstreamAuth) -> None: ...

    async def epoch(self) -> int:
        """A number that changes when an operator has removed something; each worker then clears its memory. If the
        number cannot be read, the last number that was read.
        """

    async def advance_epoch(self) -> None:
        """Change the number. Raises StorageFailed if it cannot be written; the workers then keep their memory."""


@dataclass(frozen=True)
class Used:
    """Stored content and its last use. `size`: bytes; `used_at`: seconds since 1970."""

    digest: Digest
    size: int
    used_at: float


class Stored(Value, frozen=True):
    """`count`: manifests and blobs; `size`: their bytes."""

    count: int = 0
    size: int = 0


class UsageIndex(Protocol):
    """The size and the last use of all stored content, by digest. It survives restarts, and all workers share it. It
    is next to the KnowledgeIndex of this replica, which knows the upstreams that sent the content.
    """

    async def keep(self, entries: list[Used]) -> None:
        """Store these entries, in place of existing entries with the same digests."""

    async def touch(self, times: Mapping[Digest, float]) -> None:
        """Store the times at which content was used. Ignores content without an entry."""

    async def forget(self, digests: list[Digest]) -> None: ...

    async def all(self) -> list[Used]:
        """All entries, the least recently used first."""

    async def evictable(self) -> list[Used]:
        """The entries of content that no pinned image needs, the least recently used first; see PinIndex. Content of
        which this cannot be found out is not among them.
        """

    async def pinned(self) -> Stored:
        """All stored content that is not evictable, together."""

    async def total(self) -> Stored:
        """All content together. It is read much more often than `all`."""

    async def by_upstream(self) -> dict[str, Stored]:
        """The content that each upstream has sent, by its URL; see KnowledgeIndex.was_sent. Content that several
        upstreams have sent counts for each of them. It reads all entries, in short steps between other queries.
        """

    async def find(self, digests: Iterable[Digest]) -> dict[Digest, Used]:
        """The entries of this content, by digest."""


class Occurrence(Value, frozen=True):
    """Content in a repository, and a class of callers to which the upstream gave it there. The upstream with this URL
    may have been removed from the settings.
    """

    upstream_url: str
    repository: str
    digest: Digest
    caller_class: CallerClass


class ImageIndex(Protocol):
    """Lists for the page, each with a bounded number of entries. They contain what this replica has learnt, without the
    tags that have been removed on another replica since. Links and grants may have been removed there, so they are
    checked with the KnowledgeIndex.

    `classes`: the entry was given to callers of one of these classes. A failing read finds nothing.
    """

    async def repositories(
        self, upstream: Upstream, classes: frozenset[CallerClass], containing: str, after: str, limit: int
    ) -> list[RepositoryName]:
        """The names of repositories with cached tags that contain this text and follow the name `after`, in order."""

    async def first_tags(
        self, repositories: Mapping[Source, frozenset[CallerClass]], limit: int
    ) -> dict[Source, list[Tag]]:
        """The first cached tags of each of these repositories, in order, at most `limit` of each; given to callers of
        one of its classes.
        """

    async def tags_in(self, source: Source, classes: frozenset[CallerClass], after: str, limit: int) -> list[CachedTag]:
        """The cached tags of a repository that follow the tag `after`, in order; of each, the one that was checked
        last.
        """

    async def manifests_in(self, source: Source, classes: frozenset[CallerClass], limit: int) -> list[Digest]:
        """The manifests of a repository, the last confirmed first."""

    async def occurrences(self, digests: Iterable[Digest], limit: int) -> list[Occurrence]:
        """Where this content occurs, in the repositories of all upstreams."""
