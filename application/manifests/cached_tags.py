"""CachedTags: what tags meant when the upstream was last asked, in memory and in the index."""

from dataclasses import replace

from application.access.grants import BELIEVED_SECONDS
from application.concurrency import LruCache
from application.ports.index import KnowledgeIndex
from domain.cache_policy import CachePolicy
from domain.digest import Digest
from domain.names import Tag
from domain.ports import Clock
from domain.records import ANONYMOUS_CLASS, CachedTag, CallerClass, TagKey
from domain.upstreams import Source
from domain.variants import accepts

_REMEMBERED = 16384
_LONGEST_EXTENSION = 600.0
_Marks = dict[tuple[str, CallerClass], CachedTag]
"""Of one tag, by variant and class of callers."""


class CachedTags:
    """A mark is believed for a while; after that it is only good for standing in."""

    def __init__(self, index: KnowledgeIndex, policy: CachePolicy, clock: Clock) -> None:
        self._index = index
        self._policy = policy
        self._clock = clock
        self._known: LruCache[tuple[Source, Tag], tuple[_Marks, float]] = LruCache(_REMEMBERED)
        self._learnt: LruCache[tuple[Source, Tag], _Marks] = LruCache(_REMEMBERED)
        """What this process has learnt. While the index is being written, who reads it would miss that."""

    async def find(self, key: TagKey, classes: frozenset[CallerClass]) -> CachedTag | None:
        """The newest mark that was given to one of these classes of callers, whichever worker made it."""
        known = self._known.get((key.source, key.tag))
        cached_tag = _newest(known[0], key, classes) if known else None
        if cached_tag is None or not self.is_fresh(cached_tag):
            self._known.pop((key.source, key.tag))  # another worker may have asked meanwhile
        return _newest(await self._variants(key.source, key.tag), key, classes)

    async def stand_in(self, key: TagKey, accept: tuple[str, ...], classes: frozenset[CallerClass]) -> CachedTag | None:
        """What may be told while the upstream cannot be asked, of what it gave to these classes of callers: the newest
        mark of this variant, or of another variant whose type is accepted too. Whoever warmed the tag seldom accepts
        the very types that the next client does.
        """
        cached_tags = await self._variants(key.source, key.tag)
        others = sorted(cached_tags.values(), key=lambda cached_tag: -cached_tag.checked_at)
        known = [
            cached_tag
            for cached_tag in (_newest(cached_tags, key, classes), *others)
            if cached_tag and cached_tag.given_to in classes and accepts(accept, cached_tag.media_type)
        ]
        now = self._clock.now()
        return next((cached_tag for cached_tag in known if self._policy.may_serve_stale(cached_tag, now)), None)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock.now()

    async def recent(self, source: Source, tag: Tag, classes: frozenset[CallerClass], since: float) -> list[CachedTag]:
        """What the tag means for these classes of callers and whatever media types, where that is fresh or was learnt
        `since`.
        """
        cached_tags = (await self._variants(source, tag)).values()
        return [
            cached_tag
            for cached_tag in cached_tags
            if cached_tag.given_to in classes and (self.is_fresh(cached_tag) or cached_tag.checked_at >= since)
        ]

    def is_fresh(self, cached_tag: CachedTag) -> bool:
        return self._policy.tag_is_fresh(cached_tag, self._clock.now())

    def fresh_until(self, cached_tag: CachedTag) -> float:
        return self._policy.fresh_until(cached_tag)

    async def learn(self, key: TagKey, digest: Digest, media_type: str, given_to: CallerClass) -> CachedTag:
        """The upstream said just now to this class of callers what the tag means."""
        cached_tag = CachedTag(key, digest, media_type, self._clock.now(), given_to)
        learnt = self._learnt.get((key.source, key.tag)) or {}
        self._learnt.put((key.source, key.tag), learnt | {(key.variant, given_to): cached_tag})
        await self._keep(cached_tag)
        return cached_tag

    async def _keep(self, cached_tag: CachedTag) -> None:
        key = cached_tag.key
        if known := self._known.get((key.source, key.tag)):
            known[0][key.variant, cached_tag.given_to] = cached_tag
        await self._index.keep_tag(cached_tag)

    async def extend(self, cached_tag: CachedTag) -> None:
        """The upstream did not say what the tag means, but that it wants to be asked less: the mark is believed for its
        time once more, but ten minutes at most. A rule may let a tag be believed for a week; that is no reason not to
        ask for two.
        """
        now = self._clock.now()
        ttl = self._policy.fresh_until(cached_tag) - cached_tag.checked_at
        checked_at = max(cached_tag.checked_at, now - max(0.0, ttl - _LONGEST_EXTENSION))
        await self._keep(replace(cached_tag, checked_at=checked_at))

    async def forget(self, source: Source, tag: Tag) -> None:
        """The upstream does not have the tag, for whatever media types."""
        self._known.pop((source, tag))
        self._learnt.pop((source, tag))
        await self._index.forget_tags(source, tag)

    async def withdraw(self, source: Source, tag: Tag, from_class: CallerClass) -> None:
        """The upstream refused the tag to this class of callers."""
        self._known.pop((source, tag))
        self._learnt.pop((source, tag))
        await self._index.forget_tags(source, tag, from_class)

    def forget_all(self) -> None:
        """What is in memory; the index has what is true."""
        self._known.clear()
        self._learnt.clear()

    async def _variants(self, source: Source, tag: Tag) -> _Marks:
        """Remembered for a moment only: another worker may know better."""
        known = self._known.get((source, tag))
        now = self._clock.now()
        if known is None or now >= known[1] + BELIEVED_SECONDS:
            found = {
                (cached_tag.key.variant, cached_tag.given_to): cached_tag
                for cached_tag in await self._index.find_tags(source, tag)
            }
            for place, cached_tag in (self._learnt.get((source, tag)) or {}).items():
                stored = found.get(place)
                if now < cached_tag.checked_at + BELIEVED_SECONDS and (
                    not stored or stored.checked_at < cached_tag.checked_at
                ):
                    found[place] = cached_tag
            known = found, now
            self._known.put((source, tag), known)
        return known[0]


def _newest(cached_tags: _Marks, key: TagKey, classes: frozenset[CallerClass]) -> CachedTag | None:
    """The newest mark of this variant among those of these classes; of two of one moment, not the anonymous one."""
    known = [cached_tag for given_to in classes if (cached_tag := cached_tags.get((key.variant, given_to)))]
    return max(
        known, key=lambda cached_tag: (cached_tag.checked_at, cached_tag.given_to != ANONYMOUS_CLASS), default=None
    )
