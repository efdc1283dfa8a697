"""CachePolicy: how long cached information is valid, and how much content may be stored."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from domain.patterns import RepositoryPattern, TagPattern
from domain.records import PERSONAL_CLASS, CachedTag, Grant, TagKey, class_of
from domain.upstreams import Upstream
from domain.value import Value

_KEPT_SHARE = 0.9
"""Eviction stops at this share of the bound. Otherwise every new blob would start another eviction."""


@dataclass(frozen=True)
class FreshnessRule:
    """Cache times in seconds of the tags that match; None leaves the time to later rules. Without repositories, the
    rule applies to all of them. Raises ValueError if the rule has no tag or no time.
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
        is_repository = not self.repositories or any(pattern.matches(key.source) for pattern in self.repositories)
        return is_repository and any(pattern.matches(key.tag) for pattern in self.tags)


@dataclass(frozen=True)
class CacheTimes:
    """Cache times of one upstream, in seconds.

    `tag_ttl`: how long a tag is used without revalidation. `grant_ttl`: how long a caller's permission to read a
    repository is valid. `stale_ttl`: how long both are used during an outage of the upstream. For a tag, the first
    matching rule that sets a time overrides it.

    Raises ValueError if the stale_ttl of a rule is longer than that of the upstream: the permission to read the tag
    would expire earlier.
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

    def tag_ttl_of(self, key: TagKey) -> float:
        matching = (rule.tag_ttl for rule in self.rules if rule.tag_ttl is not None and rule.matches(key))
        return next(matching, self.tag_ttl)

    def stale_ttl_of(self, key: TagKey) -> float:
        matching = (rule.stale_ttl for rule in self.rules if rule.stale_ttl is not None and rule.matches(key))
        return next(matching, self.stale_ttl)


@dataclass(frozen=True)
class CachePolicy:
    """`by_upstream`: the times of the upstreams for which the default times do not apply."""

    default: CacheTimes
    by_upstream: Mapping[Upstream, CacheTimes] = field(default_factory=dict)

    def times_of(self, upstream: Upstream) -> CacheTimes:
        return self.by_upstream.get(upstream, self.default)

    # All times are in seconds since 1970.

    def fresh_until(self, cached_tag: CachedTag) -> float:
        """The time until which the tag is used without revalidation."""
        return cached_tag.checked_at + self.times_of(cached_tag.key.source.upstream).tag_ttl_of(cached_tag.key)

    def stale_until(self, cached_tag: CachedTag) -> float:
        """The time until which the tag may be served during an outage of the upstream: until its stale_ttl or its
        tag_ttl has passed, whichever is later.
        """
        stale_ttl = self.times_of(cached_tag.key.source.upstream).stale_ttl_of(cached_tag.key)
        return max(cached_tag.checked_at + stale_ttl, self.fresh_until(cached_tag))

    def grant_stale_until(self, grant: Grant) -> float:
        """The time until which the grant is valid during an outage of the upstream. A grant covers all tags of its
        repository, so the rules for tags do not apply.

        Only use this for grants of the anonymous caller and of the mirror. The upstream may have withdrawn the
        permission of any other caller, so their grants end at `ends_at`.
        """
        return grant.given_at + self.times_of(grant.source.upstream).stale_ttl

    def remember_until(self, grant: Grant) -> float:
        """The time until which the grant can be used."""
        is_personal = class_of(grant.caller) == PERSONAL_CLASS
        return grant.ends_at if is_personal else max(grant.ends_at, self.grant_stale_until(grant))


class CacheCapacity(Value, frozen=True):
    """`max_bytes`: maximum bytes of content and partial blobs. `upstreams`: the number of upstreams that share them."""

    max_bytes: int
    upstreams: int = 1

    @property
    def max_partial_blobs(self) -> int:
        """Maximum bytes of all partial blobs: three quarters, so that running downloads cannot evict all content."""
        return int(self.max_bytes * 0.75)

    @property
    def max_partial_blobs_of_upstream(self) -> int:
        """Maximum bytes of the partial blobs of one upstream: a half, if there are several upstreams. A larger blob
        cannot be stored.
        """
        return self.max_partial_blobs if self.upstreams <= 1 else int(self.max_bytes * 0.5)

    @property
    def max_partial_blobs_beside_unmeasured(self) -> int:
        """Maximum bytes of all partial blobs while a blob of unknown size is downloaded: a quarter, because that blob
        may be endless.
        """
        return int(self.max_bytes * 0.25)

    @property
    def reservation(self) -> int:
        """Bytes that a running download reserves at a time. To reserve takes some milliseconds in which the download
        receives nothing.
        """
        return max(1, min(64 * 1024 * 1024, self.max_bytes // 64))

    def can_store(self, size: int) -> bool:
        """Whether content of this size can be stored. Larger content would be evicted at once."""
        return size <= self.max_bytes * _KEPT_SHARE

    def bytes_to_free(self, used: int, wanted: int = 0) -> int:
        """Bytes to evict so that `wanted` more bytes fit; 0 if they fit now."""
        if used + wanted <= self.max_bytes:
            return 0
        return used + wanted - int(self.max_bytes * _KEPT_SHARE)


def should_download_whole(requests: int, asked: int, total: int) -> bool:
    """Whether range requests for a blob that is not cached start a download of the whole blob. They request `asked` of
    its `total` bytes together.

    A single request must cover half of the blob, several requests an eighth. So the bytes that the mirror downloads
    stay in proportion to the bytes that clients request.
    """
    return 2 * asked >= total or (requests > 1 and 8 * asked >= total)


def content_to_evict(candidates: Collection[tuple[str, int]], bytes_to_free: int) -> list[str]:
    """The names of the first candidates whose removal frees enough bytes. `candidates`: name and size in bytes, least
    recently used first.
    """
    freed_before = accumulate((size for _, size in candidates), initial=0)
    return [name for (name, _), freed in zip(candidates, freed_before, strict=False) if freed < bytes_to_free]
