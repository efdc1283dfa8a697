"""CachePolicy: how long what was learnt may be believed, and how much may be kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from domain.patterns import RepositoryPattern, TagPattern
from domain.records import ANONYMOUS_CALLER, CachedTag, Grant, TagKey, is_mirror_caller
from domain.upstreams import Upstream

_KEPT_SHARE = 0.9
"""Where room is made at all, a tenth is made: else each new blob would have to push another one out."""


@dataclass(frozen=True)
class FreshnessRule:
    """Times of some tags; None where it says nothing of one. Without repositories it is about all of them. Raises
    ValueError where it is about nothing or says nothing.
    """

    tags: tuple[TagPattern, ...]
    repositories: tuple[RepositoryPattern, ...] = ()
    tag_ttl: float | None = None
    stale_ttl: float | None = None

    def __post_init__(self) -> None:
        if not self.tags:
            raise ValueError("a freshness rule must name at least one tag; * matches every tag")
        if self.tag_ttl is None and self.stale_ttl is None:
            raise ValueError("a freshness rule must set tag_ttl, stale_ttl or both")

    def matches(self, key: TagKey) -> bool:
        if self.repositories and not any(pattern.matches(key.source) for pattern in self.repositories):
            return False
        return any(pattern.matches(key.tag) for pattern in self.tags)


@dataclass(frozen=True)
class CacheTimes:
    """Of one upstream, in seconds. `tag_ttl`: a tag is believed without asking; `grant_ttl`: so is a caller's right to
    a repository; `stale_ttl`: so is all of that while the upstream cannot be asked. For a tag, the first of the `rules`
    that matches and says something of the time in question goes first.

    Raises ValueError where a rule lets a tag stand in for longer than the right to read it is remembered: nobody would
    be given it.
    """

    tag_ttl: float
    grant_ttl: float
    stale_ttl: float
    rules: tuple[FreshnessRule, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.stale_ttl is not None and rule.stale_ttl > self.stale_ttl:
                raise ValueError(
                    f"a freshness rule's stale_ttl ({rule.stale_ttl:g}) is longer than the upstream's stale_ttl "
                    f"({self.stale_ttl:g}), after which the mirror forgets who may read the repository"
                )

    def grant_end(self, now: float, token_ends_at: float) -> float:
        """A right is proven anew after a while, and never outlives the token that proved it."""
        return min(now + self.grant_ttl, token_ends_at)

    def tag_ttl_of(self, key: TagKey) -> float:
        own = (rule.tag_ttl for rule in self.rules if rule.tag_ttl is not None and rule.matches(key))
        return next(own, self.tag_ttl)

    def stale_ttl_of(self, key: TagKey) -> float:
        own = (rule.stale_ttl for rule in self.rules if rule.stale_ttl is not None and rule.matches(key))
        return next(own, self.stale_ttl)


@dataclass(frozen=True)
class CachePolicy:
    """`own` are the times of upstreams that differ from the `usual` ones."""

    usual: CacheTimes
    own: Mapping[Upstream, CacheTimes] = field(default_factory=dict)

    def times_of(self, upstream: Upstream) -> CacheTimes:
        return self.own.get(upstream, self.usual)

    def tag_is_fresh(self, cached_tag: CachedTag, now: float) -> bool:
        return now < self.fresh_until(cached_tag)

    def fresh_until(self, cached_tag: CachedTag) -> float:
        return cached_tag.checked_at + self.times_of(cached_tag.key.source.upstream).tag_ttl_of(cached_tag.key)

    def may_serve_stale(self, cached_tag: CachedTag, now: float) -> bool:
        """Whether what a tag meant may still be told while nobody can ask the upstream again. What is believed without
        asking may be: where a tag is believed for longer than it may be stale, that is for so long.
        """
        stale_until = cached_tag.checked_at + self.times_of(cached_tag.key.source.upstream).stale_ttl_of(cached_tag.key)
        return now < max(stale_until, self.fresh_until(cached_tag))

    def grant_survives_outage(self, grant: Grant, now: float) -> bool:
        """Whether what was let through stays readable while nobody can ask the upstream again.

        For repositories that it gave to nobody in particular, and for the mirror's own right, which no caller can
        have lost. A caller's own right may have been taken back meanwhile: it ends when it ends.
        """
        return now < self._stale_end(grant)

    def remember_until(self, grant: Grant) -> float:
        """Until when the grant is worth remembering, in seconds since 1970."""
        lasting = grant.caller == ANONYMOUS_CALLER or is_mirror_caller(grant.caller)
        return max(grant.ends_at, self._stale_end(grant)) if lasting else grant.ends_at

    def _stale_end(self, grant: Grant) -> float:
        """A right is to a repository, whatever its tags: only the upstream's own time counts."""
        return grant.given_at + self.times_of(grant.source.upstream).stale_ttl


_DRAFTS_SHARE = 0.75
"""All drafts together take three quarters of the cache at most, so that nothing that is still arriving evicts
everything.
"""
_UPSTREAM_SHARE = 0.5
"""The drafts of one of several upstreams take half of it at most, so that it leaves room to others."""
_UNMEASURED_SHARE = 0.25
"""A draft whose blob has no known length grows only while all drafts together take a quarter: it may have no end."""
_LONGEST_STEP = 8 * 1024 * 1024
_STEPS = 64
_WORTH = 8
"""Requests for parts start a download of at most so many times the bytes that were asked for."""


@dataclass(frozen=True)
class CacheCapacity:
    """`bound`: how many bytes content and drafts may take together. `upstreams`: how many upstreams share it."""

    bound: int
    upstreams: int = 1

    @property
    def for_partial_blobs(self) -> int:
        """Bytes that all drafts may take together."""
        return int(self.bound * _DRAFTS_SHARE)

    @property
    def for_partial_blobs_of_one(self) -> int:
        """Bytes that the drafts of one upstream may take together; a blob that is larger cannot be kept."""
        return self.for_partial_blobs if self.upstreams <= 1 else int(self.bound * _UPSTREAM_SHARE)

    @property
    def for_partial_blobs_beside_unmeasured(self) -> int:
        """Bytes that all drafts may take together for one of them to grow whose blob has no known length."""
        return int(self.bound * _UNMEASURED_SHARE)

    @property
    def step(self) -> int:
        """Bytes for which room is made at a time while a download arrives."""
        return max(1, min(_LONGEST_STEP, self.bound // _STEPS))

    def is_for(self, size: int) -> bool:
        """Whether content of this size can be kept at all; more than the kept share would leave at once again."""
        return size <= self.bound * _KEPT_SHARE

    def bytes_to_free(self, used: int, wanted: int = 0) -> int:
        """How many bytes have to go, 0 while `used` and `wanted` bytes more fit."""
        if used + wanted <= self.bound:
            return 0
        return used + wanted - int(self.bound * _KEPT_SHARE)


def should_download_whole(requests: int, asked: int, total: int) -> bool:
    """Whether requests for parts of a cold blob, `asked` bytes of its `total` in all, start a download of the whole.

    A single request does so for half of the blob or more, several for an eighth. So what a mirror asks its upstream for
    stays in proportion to what its clients ask for.
    """
    return 2 * asked >= total or (requests > 1 and _WORTH * asked >= total)


def victims(candidates: Iterable[tuple[str, int]], bytes_to_free: int) -> list[str]:
    """The first candidates (name and size in bytes, least recently used first) that free that many bytes."""
    chosen: list[str] = []
    for name, size in candidates:
        if bytes_to_free <= 0:
            break
        chosen.append(name)
        bytes_to_free -= size
    return chosen
