"""Grants: which callers may read which repositories, as the upstream recently answered."""

from application.access.access_request import PullAccess
from application.concurrency import BackgroundTasks, LruCache
from application.ports.index import BELIEVED_SECONDS, KnowledgeIndex
from domain.cache_policy import CachePolicy
from domain.ports import Clock
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    CallerClass,
    CallerId,
    Grant,
    class_of,
    classes_for,
    is_mirror_caller,
)
from domain.upstreams import Source

_REMEMBERED = 32768
_REWRITTEN_SHARE = 0.25
"""A grant is written again only if this share of its lifetime has passed."""


class Grants:
    """A successful answer of the upstream gives the caller a grant. The grant ends after some time, at the end of the
    token, or when the upstream refuses the caller.
    """

    def __init__(self, index: KnowledgeIndex, policy: CachePolicy, clock: Clock, background: BackgroundTasks) -> None:
        self._index = index
        self._policy = policy
        self._clock = clock
        self._background = background
        self._known: LruCache[tuple[CallerId, Source], tuple[Grant, float]] = LruCache(_REMEMBERED)

    async def live(self, access: PullAccess) -> Grant | None:
        """The grant that is valid now; with it, the upstream is not asked."""
        now = self._clock.now()
        if now >= access.identity.ends_at:
            return None  # the token has ended, so the grant does not count
        known = self._remembered(access.caller, access.source) or await self._look_up(access.caller, access.source)
        return known if known and now < known.ends_at else None

    def believed_until(self, access: PullAccess) -> float:
        """Until when the result of `live` may be used (seconds since 1970). Then another worker or replica may have met
        a refusal.
        """
        known = self._known.get((access.caller, access.source))
        return known[1] + BELIEVED_SECONDS if known else 0.0

    async def standing_in(self, access: PullAccess) -> frozenset[CallerClass]:
        """The caller classes whose content this caller may get while the upstream is unavailable: the caller's own
        class while its grant is live; the mirror's and the anonymous class while their grants outlive an outage.

        A grant is for a repository and does not cover content that was pushed there later. So content and the digests
        of tags are given only to the caller classes that received them from the upstream.
        """
        classes = set(classes_for(access.caller)) if await self.live(access) else set()
        if is_mirror_caller(access.caller) and await self._outliving(access.caller, access.source):
            classes.add(class_of(access.caller))
        if await self._outliving(ANONYMOUS_CALLER, access.source):
            classes.add(ANONYMOUS_CLASS)
        return frozenset(classes)

    async def is_public(self, source: Source) -> bool:
        """Whether anonymous callers had access, recently enough to rely on it while the upstream is unavailable."""
        return await self._outliving(ANONYMOUS_CALLER, source) is not None

    def give(self, access: PullAccess) -> None:
        """The upstream has just given this caller access."""
        now, times = self._clock.now(), self._policy.times_of(access.source.upstream)
        before = self._remembered(access.caller, access.source)
        grant = Grant(access.caller, access.source, now, min(now + times.grant_ttl, access.identity.ends_at))
        if before and before.ends_at >= grant.ends_at - times.grant_ttl * _REWRITTEN_SHARE:
            return
        self._known.put((access.caller, access.source), (grant, now))
        self._background.start(self._index.keep_grant(grant, self._policy.remember_until(grant)))

    async def end(self, access: PullAccess) -> None:
        """The upstream refused this caller. Returns when the index is written, because another worker may get the next
        request.
        """
        self._known.pop((access.caller, access.source))
        await self._index.forget_grant(access.caller, access.source)

    def forget_all(self) -> None:
        """Clear the memory. The index is not changed."""
        self._known.clear()

    async def _outliving(self, caller: CallerId, source: Source) -> Grant | None:
        grant = self._remembered(caller, source) or await self._look_up(caller, source)
        return grant if grant and self._clock.now() < self._policy.grant_stale_until(grant) else None

    def _remembered(self, caller: CallerId, source: Source) -> Grant | None:
        """The grant in memory, if it was read a few seconds ago; later another worker may have removed it."""
        known = self._known.get((caller, source))
        return known[0] if known and self._clock.now() < known[1] + BELIEVED_SECONDS else None

    async def _look_up(self, caller: CallerId, source: Source) -> Grant | None:
        read_at = self._clock.now() - self._index.age(source)
        grant = await self._index.find_grant(caller, source)
        if grant is None:
            self._known.pop((caller, source))
        else:
            self._known.put((caller, source), (grant, read_at))
        return grant
