"""Cache times, grants, and the capacity of the cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cache_policy import (
    CacheCapacity,
    CachePolicy,
    CacheTimes,
    FreshnessRule,
    content_to_evict,
    should_download_whole,
)
from domain.digest import Digest
from domain.names import RepositoryName, Tag
from domain.patterns import RepositoryPattern, TagPattern
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, CachedTag, CallerId, Grant, TagKey, mirror_caller
from domain.upstreams import Origin, Source, Upstream

SOURCE = Source(Upstream.at("https://u.test", Origin("https", "u.test", 443)), RepositoryName("a/b"))
DEFAULT = CacheTimes(tag_ttl=60, grant_ttl=300, stale_ttl=86400)
POLICY = CachePolicy(DEFAULT)
ALICE = CallerId("login 1")
SIZES = st.integers(0, 10**6)
ENTRIES = st.lists(st.tuples(st.uuids().map(str), SIZES), max_size=30)


def cached_tag(checked_at: float, tag: str = "1", source: Source = SOURCE) -> CachedTag:
    return CachedTag(TagKey(source, Tag(tag), ""), Digest.of(b""), "t", checked_at, ANONYMOUS_CLASS)


def grant(caller: CallerId, given_at: float = 1000, ends_at: float = 1300) -> Grant:
    return Grant(caller, SOURCE, given_at, ends_at)


@pytest.mark.parametrize(("now", "fresh"), [(1000, True), (1059.9, True), (1060, False), (1061, False)])
def test_a_tag_is_fresh_for_its_tag_ttl(now: float, fresh: bool) -> None:  # noqa: FBT001 - a table
    assert (now < POLICY.fresh_until(cached_tag(1000))) is fresh


def test_with_times_of_zero_nothing_is_fresh() -> None:
    policy = CachePolicy(CacheTimes(0, 0, 0))
    assert policy.fresh_until(cached_tag(1000)) == 1000
    assert policy.grant_stale_until(grant(ANONYMOUS_CALLER)) == 1000


@pytest.mark.parametrize("caller", [ANONYMOUS_CALLER, mirror_caller("a"), ALICE])
def test_a_grant_is_valid_during_an_outage_for_the_stale_ttl(caller: CallerId) -> None:
    assert POLICY.grant_stale_until(grant(caller)) == 1000 + 86400


def test_grants_that_are_valid_during_an_outage_are_remembered_longer() -> None:
    assert POLICY.remember_until(grant(ANONYMOUS_CALLER)) == 1000 + 86400
    assert POLICY.remember_until(grant(mirror_caller("a"))) == 1000 + 86400
    assert POLICY.remember_until(grant(ALICE)) == 1300
    brief = CachePolicy(CacheTimes(60, 300, 10))
    assert brief.remember_until(grant(ANONYMOUS_CALLER)) == 1300


OTHER = Source(Upstream.at("https://o.test", Origin("https", "o.test", 443)), RepositoryName("a/b"))
WEEK = 604800
RULED = CachePolicy(
    CacheTimes(
        60,
        300,
        86400,
        (
            FreshnessRule((TagPattern("latest"),), tag_ttl=30),
            FreshnessRule((TagPattern("v*.*.*"), TagPattern("release-*")), (RepositoryPattern("a/**"),), WEEK, 0),
            FreshnessRule((TagPattern("v*"),), stale_ttl=500),
            FreshnessRule((TagPattern("*"),), tag_ttl=90),
        ),
    ),
    {OTHER.upstream: CacheTimes(5, 6, 7)},
)


def elsewhere(name: str) -> Source:
    return Source(SOURCE.upstream, RepositoryName(name))


@pytest.mark.parametrize(
    ("tag", "source", "believed", "stale"),
    [
        ("latest", SOURCE, 30, 86400),
        ("v1.2.3", SOURCE, WEEK, 0),
        ("release-7", SOURCE, WEEK, 0),
        ("v1.2.3", elsewhere("c/b"), 90, 500),
        ("v1", SOURCE, 90, 500),
        ("main", SOURCE, 90, 86400),
        ("latest", OTHER, 5, 7),
    ],
)
def test_the_first_matching_rule_that_sets_a_time_decides(
    tag: str, source: Source, believed: float, stale: float
) -> None:
    asked = cached_tag(1000, tag, source)
    assert RULED.fresh_until(asked) == 1000 + believed
    assert RULED.times_of(source.upstream).stale_ttl_of(asked.key) == stale


def test_a_tag_is_stale_after_its_own_stale_ttl() -> None:
    assert RULED.stale_until(cached_tag(1000, "v1")) == 1500
    assert RULED.stale_until(cached_tag(1000, "latest")) == 1000 + 86400


def test_a_fresh_tag_is_also_served_during_an_outage() -> None:
    assert RULED.stale_until(cached_tag(1000, "v1.2.3")) == 1000 + WEEK


def test_grants_use_the_times_of_their_upstream_without_tag_rules() -> None:
    there = Grant(ANONYMOUS_CALLER, OTHER, 1000, 1006)
    assert RULED.grant_stale_until(there) == 1007
    assert RULED.remember_until(there) == 1007
    assert RULED.remember_until(grant(ANONYMOUS_CALLER)) == 1000 + 86400


def test_a_stale_ttl_longer_than_that_of_the_upstream_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stale_ttl \(86401\) is longer than the upstream's stale_ttl \(86400\)"):
        CacheTimes(60, 300, 86400, (FreshnessRule((TagPattern("*"),), stale_ttl=86401),))
    assert CacheTimes(60, 300, 86400, (FreshnessRule((TagPattern("*"),), stale_ttl=86400),))


def test_a_freshness_rule_without_a_tag_or_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one tag"):
        FreshnessRule((), tag_ttl=1)
    with pytest.raises(ValueError, match="tag_ttl, stale_ttl or both"):
        FreshnessRule((TagPattern("*"),))


@given(st.integers(0, 10**6), SIZES, SIZES)
def test_eviction_frees_space_down_to_nine_tenths(bound: int, used: int, wanted: int) -> None:
    bytes_to_free = CacheCapacity(bound).bytes_to_free(used, wanted)
    assert (bytes_to_free == 0) is (used + wanted <= bound)
    if bytes_to_free:
        assert used + wanted - bytes_to_free == int(bound * 0.9)


@given(st.integers(0, 10**6), SIZES)
def test_content_that_can_be_stored_fits_without_another_eviction(bound: int, size: int) -> None:
    capacity = CacheCapacity(bound)
    assert capacity.can_store(size) is (size <= bound * 0.9)
    if capacity.can_store(size):
        assert capacity.bytes_to_free(0, size) == 0


@given(ENTRIES, st.integers(-10, 10**7))
def test_eviction_takes_the_oldest_and_no_more_than_needed(entries: list[tuple[str, int]], bytes_to_free: int) -> None:
    chosen = content_to_evict(entries, bytes_to_free)
    assert chosen == [name for name, _ in entries[: len(chosen)]]
    sizes = [size for _, size in entries[: len(chosen)]]
    assert sum(sizes[:-1]) < bytes_to_free or not chosen
    assert sum(sizes) >= bytes_to_free or len(chosen) == len(entries)


def test_nothing_is_evicted_if_no_bytes_are_needed() -> None:
    assert content_to_evict([("a", 1)], 0) == []
    assert content_to_evict([], 5) == []


def test_partial_blobs_may_use_three_quarters_of_the_cache_and_half_for_one_of_several_upstreams() -> None:
    assert (CacheCapacity(1000).max_partial_blobs, CacheCapacity(1000).max_partial_blobs_of_upstream) == (750, 750)
    assert (CacheCapacity(1000, 3).max_partial_blobs, CacheCapacity(1000, 3).max_partial_blobs_of_upstream) == (
        750,
        500,
    )
    assert CacheCapacity(1000, 3).max_partial_blobs_beside_unmeasured == 250
    assert (CacheCapacity(0).reservation, CacheCapacity(6400).reservation, CacheCapacity(1 << 40).reservation) == (
        1,
        100,
        64 << 20,
    )


@pytest.mark.parametrize(
    ("requests", "asked", "is_worth"),
    [(1, 1, False), (1, 499, False), (1, 500, True), (2, 124, False), (2, 125, True), (10, 10, False)],
)
def test_small_ranges_start_no_download_of_the_whole_blob(requests: int, asked: int, is_worth: bool) -> None:  # noqa: FBT001
    assert should_download_whole(requests, asked, 1000) == is_worth
