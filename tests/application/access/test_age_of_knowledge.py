"""With replicas, the index answers from a memory. What is some seconds old there is used for less time here."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

from application.access.access_request import Access, PullAccess
from application.access.caller import CallerIdentities
from application.access.grants import Grants
from application.access.read_permission import ReadPermissions
from application.concurrency import BackgroundTasks
from application.manifests.cached_tags import CachedTags
from application.manifests.manifest_query import ManifestQuery
from application.ports.index import BELIEVED_SECONDS, CallerIdentity
from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.cache_policy import CachePolicy, CacheTimes
from domain.digest import Digest
from domain.names import Reference, RepositoryName, Tag
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    CachedTag,
    CallerId,
    ContentKind,
    ContentLocation,
    Grant,
    Link,
)
from domain.upstreams import Origin, Source, Upstream
from tests.fakes.clock import StoppedClock
from tests.fakes.codec import PlainTokenCodec
from tests.fakes.index import MemoryKnowledgeIndex

AGE = 3.0
SOURCE = Source(Upstream.at("https://u.test", Origin("https", "u.test", 443)), RepositoryName("app"))
LOCATION = ContentLocation(SOURCE, ContentKind.BLOB, Digest.of(b"a layer"))
ACCESS = PullAccess(CallerIdentity(ANONYMOUS_CALLER, float("inf")), SessionCredentials(None), SOURCE)
QUERY = ManifestQuery(SOURCE.repository, Reference(Tag("1")))


class AgedIndex(MemoryKnowledgeIndex):
    """Its answers were read some seconds ago. Counts the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def age(self, subject: Source | str) -> float:
        return AGE

    async def find_link(self, *question: Any) -> Link | None:
        self.asked["link"] += 1
        return await super().find_link(*question)

    async def find_tags(self, *question: Any, latest: bool = False) -> list[CachedTag]:
        self.asked["latest tag" if latest else "tag"] += 1
        return await super().find_tags(*question)

    async def find_grant(self, *question: Any) -> Grant | None:
        self.asked["grant"] += 1
        return await super().find_grant(*question)

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        self.asked["token"] += 1
        return await super().find_token(fingerprint)


def test_what_is_used_for_five_seconds_includes_the_age_of_the_answer() -> None:
    async def act() -> None:
        index, clock, nothing = AgedIndex(), StoppedClock(), SimpleNamespace()
        times = CachePolicy(CacheTimes(tag_ttl=60, grant_ttl=300, stale_ttl=600))
        background = BackgroundTasks()
        grants = Grants(index, times, clock, background)
        permissions = ReadPermissions(nothing, grants, index, nothing, nothing, background, clock)  # type: ignore[arg-type]
        cached_tags = CachedTags(index, times, clock)
        callers = CallerIdentities(index, PlainTokenCodec(), b"k" * 32, {}, clock)
        key = QUERY.tag_key(SOURCE)
        assert key
        await index.keep_grant(Grant(ANONYMOUS_CALLER, SOURCE, clock.now(), clock.now() + 300), clock.now() + 600)
        await index.keep_link(Link(LOCATION, "", 7, frozenset({ANONYMOUS_CLASS})), clock.now())
        await index.keep_tag(CachedTag(key, LOCATION.digest, "", clock.now(), ANONYMOUS_CLASS))
        fingerprint = callers.caller_of("the-token").removeprefix("token ")
        await index.keep_token(fingerprint, CallerIdentity(CallerId("login 1"), clock.now() + 300))
        bearer: Any = SimpleNamespace(request=SimpleNamespace(upstream=SOURCE.upstream))

        async def use() -> None:
            assert await permissions.known(ACCESS, LOCATION)
            assert await cached_tags.find(key, frozenset({ANONYMOUS_CLASS}))
            identity = await callers.of(Access(bearer, ForwardedCredentials("Bearer the-token"), False))
            assert identity.caller == "login 1"

        await use()
        clock.advance(BELIEVED_SECONDS)
        await use()
        for _ in range(2):
            index.asked.clear()
            clock.advance(BELIEVED_SECONDS - AGE - 1)
            await use()
            assert not index.asked
            clock.advance(1)
            await use()
            assert index.asked == {"grant": 1, "link": 1, "tag": 1, "token": 1}

    asyncio.run(act())
