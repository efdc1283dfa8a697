"""Times of a tag's own, and of an upstream's own."""

import pytest
from dependency_injector import providers

from domain.cache_policy import CachePolicy, CacheTimes, FreshnessRule
from domain.errors import UpstreamThrottled, UpstreamUnreachable
from domain.patterns import RepositoryPattern, TagPattern
from tests.application.support.pulls import Pulls
from tests.application.support.service import NAME, PRIVATE
from tests.application.support.watched import NOBODYS

WEEK = 604800
PUBLIC = {"name": NAME}


def tags(*patterns: str, **others: object) -> FreshnessRule:
    return FreshnessRule(tuple(map(TagPattern, patterns)), **others)


def with_times(times: CacheTimes, **own: CacheTimes) -> Pulls:
    """`upstream`: the upstream's own times."""
    pulls = Pulls()
    for tag in ("latest", "v1.2.3"):
        for name in (NAME, PRIVATE):
            pulls.upstream.put_manifest(str(name), tag, b'{"schemaVersion":2,"layers":[]}')
    upstream = pulls.service.parts.upstream()
    policy = CachePolicy(times, {upstream: own["upstream"]} if own else {})
    pulls.service.parts.cache_policy.override(providers.Object(policy))
    return pulls


def believed_for(pulls: Pulls, tag: str, seconds: float) -> bool:
    """Whether the tag is answered without asking for so long, and asked for after that."""

    async def act() -> bool:
        await pulls.pull(reference=tag)
        pulls.asked()
        pulls.service.clock.advance(seconds - 1)
        await pulls.pull(reference=tag)
        before = pulls.asked()
        pulls.service.clock.advance(2)
        await pulls.pull(reference=tag)
        return (before, pulls.asked()) == ([], ["HEAD"])

    return bool(pulls.run(act()))


RULES = (
    tags("latest", tag_ttl=30),
    tags("v*.*.*", repositories=(RepositoryPattern("private/**"),), tag_ttl=900, stale_ttl=0),
)


@pytest.mark.parametrize(("tag", "seconds"), [("latest", 30), ("v1.2.3", 900), ("1", 60)])
def test_tag_is_believed_for_the_time_of_the_rule_it_matches(tag: str, seconds: float) -> None:
    assert believed_for(with_times(CacheTimes(60, 3600, 86400, RULES)), tag, seconds)


def test_upstreams_own_times_go_before_the_usual_ones() -> None:
    pulls = with_times(CacheTimes(60, 3600, 86400, RULES), upstream=CacheTimes(120, 3600, 86400))
    assert believed_for(pulls, "latest", 120)


def test_the_permission_is_proven_again_after_the_upstreams_own_time() -> None:
    pulls = with_times(CacheTimes(WEEK, WEEK, WEEK), upstream=CacheTimes(WEEK, 100, WEEK))
    assert believed_for(pulls, "v1.2.3", 100)


async def _after(pulls: Pulls, seconds: float, tag: str) -> bool:
    """Whether the tag is still answered, so long after it was fetched, while the upstream is gone."""
    await pulls.pull(NOBODYS, **PUBLIC, reference=tag)
    pulls.service.clock.advance(seconds)
    await pulls.login()
    pulls.upstream.refuse = lambda _: UpstreamUnreachable("gone")
    try:
        return bool((await pulls.pull(NOBODYS, **PUBLIC, reference=tag)).warnings)
    except UpstreamUnreachable:
        return False


@pytest.mark.parametrize(("tag", "stale"), [("latest", False), ("v1.2.3", True)])
def test_tag_that_may_not_be_stale_ends_with_the_upstream(tag: str, *, stale: bool) -> None:
    pulls = with_times(CacheTimes(60, 300, 86400, (tags("latest", stale_ttl=0),)))
    assert pulls.run(_after(pulls, 301, tag)) is stale


@pytest.mark.parametrize(("seconds", "stale"), [(999, True), (1001, False)])
def test_tag_stands_in_for_the_time_of_the_rule_it_matches(seconds: float, *, stale: bool) -> None:
    pulls = with_times(CacheTimes(60, 300, 86400, (tags("v*", stale_ttl=1000),)))
    assert pulls.run(_after(pulls, seconds, "v1.2.3")) is stale


def test_tag_that_is_believed_for_long_outlives_an_outage_as_long_as_rights_do() -> None:
    """Nobody would ask for it anyway; it is the right that needs the upstream, and everybody's is remembered."""
    pulls = with_times(CacheTimes(60, 300, 86400, (tags("v*", tag_ttl=WEEK, stale_ttl=0),)))
    assert pulls.run(_after(pulls, 86399, "v1.2.3"))


def test_a_429_does_not_let_a_tag_be_believed_for_all_of_its_time_again() -> None:
    """Nobody said that it still means the same."""
    pulls = with_times(CacheTimes(60, 5 * WEEK, 5 * WEEK, (tags("v*", tag_ttl=WEEK),)))

    async def act() -> None:
        await pulls.login(5 * WEEK)
        await pulls.pull(NOBODYS, **PUBLIC, reference="v1.2.3")
        pulls.service.clock.advance(WEEK + 1)
        pulls.upstream.refuse = lambda _: UpstreamThrottled("slow down", retry_after="1")
        assert (await pulls.pull(NOBODYS, **PUBLIC, reference="v1.2.3")).warnings
        pulls.upstream.refuse = lambda _: None
        pulls.service.clock.advance(599)
        pulls.asked()
        assert (await pulls.pull(NOBODYS, **PUBLIC, reference="v1.2.3")).warnings == ()
        assert pulls.asked() == []
        pulls.service.clock.advance(2)
        await pulls.pull(NOBODYS, **PUBLIC, reference="v1.2.3")
        assert pulls.asked() == ["HEAD"]

    pulls.run(act())
