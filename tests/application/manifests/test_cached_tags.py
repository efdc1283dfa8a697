"""Cached tags in the memory of a worker, while other workers and replicas change the index."""

import asyncio

from application.access.access_request import PullAccess
from application.manifests.cached_tags import CachedTags
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.index import CallerIdentity
from application.ports.upstream import SessionCredentials
from domain.cache_policy import CachePolicy, CacheTimes
from domain.names import Reference, RepositoryName, Tag
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, PERSONAL_CLASS
from domain.upstreams import Origin, Source, Upstream
from tests.application.support.service import IMAGE_DIGEST, IMAGE_TYPE
from tests.fakes.clock import StoppedClock
from tests.fakes.index import MemoryKnowledgeIndex

SOURCE = Source(Upstream.at("https://u.test", Origin("https", "u.test", 443)), RepositoryName("app"))
QUERY = ManifestQuery(SOURCE.repository, Reference(Tag("1")), accept=(IMAGE_TYPE,))
ACCESS = PullAccess(CallerIdentity(ANONYMOUS_CALLER, float("inf")), SessionCredentials(None), SOURCE)
ANSWER = ManifestAnswer(IMAGE_TYPE, IMAGE_DIGEST, 7, None)


def test_a_tag_that_another_worker_has_removed_is_used_for_five_seconds_at_most() -> None:
    index, clock = MemoryKnowledgeIndex(), StoppedClock()
    policy = CachePolicy(CacheTimes(tag_ttl=60, grant_ttl=300, stale_ttl=600))
    one, other = (CachedTags(index, policy, clock) for _ in range(2))
    begun = clock.now()
    key = QUERY.tag_key(SOURCE)
    assert key

    async def act() -> None:
        await one.learn(ACCESS, QUERY, ANSWER)
        await other.forget(SOURCE, Tag("1"))
        clock.advance(4.9)
        # The first request reads the index again, because its callers have no cached tag.
        assert await one.find(key, frozenset({PERSONAL_CLASS})) is None
        assert await one.find(key, frozenset({ANONYMOUS_CLASS}))
        assert one.believed_until(key) == begun + 5
        clock.advance(0.1)
        assert await one.find(key, frozenset({ANONYMOUS_CLASS})) is None

    asyncio.run(act())
