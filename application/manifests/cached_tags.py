"""CachedTags: the digests that the upstream last gave for tags, in memory and in the index."""

from dataclasses import replace

from application.access.access_request import PullAccess
from application.concurrency import LruCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.index import BELIEVED_SECONDS, KnowledgeIndex
from domain.cache_policy import CachePolicy
from domain.digest import Digest
from domain.manifests import accepts
from domain.names import Tag
from domain.ports import Clock
from domain.records import ANONYMOUS_CLASS, CachedTag, CallerClass, TagKey, class_of, classes_for
from domain.upstreams import Source

_REMEMBERED = 16384
_LONGEST_EXTENSION = 600.0
_TagsByVariant = dict[tuple[str, CallerClass], CachedTag]
"""The cached tags of one tag, by variant and caller class."""


class CachedTags:
    """A cached tag is fresh for a limited time. After that it is used only while the upstream is unavailable."""

    def __init__(self, index: KnowledgeIndex, policy: CachePolicy, clock: Clock) -> None:
        self._index = index
        self._policy = policy
        self._clock = clock
        self._known: LruCache[tuple[Source, Tag], tuple[_TagsByVariant, float]] = LruCache(_REMEMBERED)
        self._recent_answers: LruCache[tuple[Source, Tag], _TagsByVariant] = LruCache(_REMEMBERED)
        """What this process has learnt. A read of the index may miss it until the index has been written."""

    async def find(self, key: TagKey, classes: frozenset[CallerClass], *, latest: bool = False) -> CachedTag | None:
        """The newest cached tag that was given to one of these caller classes, by any worker. None if there is none.
        `latest`: read from the index, because another worker may just have asked the upstream.
        """
        known = self._known.get((key.source, key.tag))
        cached_tag = _newest(known[0], key, classes) if known else None
        if cached_tag is None or not self.is_fresh(cached_tag):
            latest = True
        return _newest(await self._variants(key.source, key.tag, latest=latest), key, classes)

    async def stand_in(self, key: TagKey, accept: tuple[str, ...], classes: frozenset[CallerClass]) -> CachedTag | None:
        """The cached tag to serve while the upstream is unavailable, from those that were given to these caller
        classes: the newest of this variant, or else of another variant with an accepted media type. The client that
        pulled the tag before often sends other Accept types than the next client. None if no cached tag may be served.
        """
        cached_tags = await self._variants(key.source, key.tag)
        others = sorted(cached_tags.values(), key=lambda cached_tag: -cached_tag.checked_at)
        known = [
            cached_tag
            for cached_tag in (_newest(cached_tags, key, classes), *others)
            if cached_tag and cached_tag.caller_class in classes and accepts(accept, cached_tag.media_type)
        ]
        now = self._clock.now()
        return next((cached_tag for cached_tag in known if now < self._policy.stale_until(cached_tag)), None)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock.now()

    async def likely_digests(self, access: PullAccess, query: ManifestQuery) -> list[Digest]:
        """The digests that an answer to this query may have: the requested one; or those of the tag, of all variants,
        that were given to callers of this class and are fresh or were learnt since the query arrived.
        """
        target, classes = query.reference.target, classes_for(access.caller)
        if not isinstance(target, Tag):
            return [target]
        return [
            cached_tag.digest
            for cached_tag in (await self._variants(access.source, target)).values()
            if cached_tag.caller_class in classes
            and (self.is_fresh(cached_tag) or cached_tag.checked_at >= query.asked_at)
        ]

    def is_fresh(self, cached_tag: CachedTag) -> bool:
        return self._clock.now() < self._policy.fresh_until(cached_tag)

    def fresh_until(self, cached_tag: CachedTag) -> float:
        return self._policy.fresh_until(cached_tag)

    def believed_until(self, key: TagKey) -> float:
        """Until when the result of `find` may be used (seconds since 1970). Then another worker or replica may have
        learnt that the tag is gone.
        """
        known = self._known.get((key.source, key.tag))
        return known[1] + BELIEVED_SECONDS if known else 0.0

    async def learn(self, access: PullAccess, query: ManifestQuery, answer: ManifestAnswer) -> None:
        """Store the digest and the media type that the upstream has just given to this caller, if the query is for a
        tag whose answer can be predicted.
        """
        key, caller_class = query.tag_key(access.source), class_of(access.caller)
        if key is None:
            return
        cached_tag = CachedTag(key, answer.digest, answer.media_type, self._clock.now(), caller_class)
        learnt = self._recent_answers.get((key.source, key.tag)) or {}
        self._recent_answers.put((key.source, key.tag), learnt | {(key.variant, caller_class): cached_tag})
        await self._keep(cached_tag)

    async def _keep(self, cached_tag: CachedTag) -> None:
        key = cached_tag.key
        if known := self._known.get((key.source, key.tag)):
            known[0][key.variant, cached_tag.caller_class] = cached_tag
        await self._index.keep_tag(cached_tag)

    async def extend(self, cached_tag: CachedTag) -> None:
        """Keep the cached tag fresh for one more period, at most ten minutes: the upstream did not say what the tag
        refers to, but asked for fewer requests. The limit matters where a rule keeps a tag fresh for a week: without
        it, the mirror would not ask the upstream for a second week.
        """
        now = self._clock.now()
        ttl = self._policy.fresh_until(cached_tag) - cached_tag.checked_at
        checked_at = max(cached_tag.checked_at, now - max(0.0, ttl - _LONGEST_EXTENSION))
        await self._keep(replace(cached_tag, checked_at=checked_at))

    async def forget(self, source: Source, tag: Tag, from_class: CallerClass | None = None) -> None:
        """Remove what was given to this caller class, because the upstream refused the tag to it. None: remove the tag,
        because the upstream does not have it.
        """
        self._known.pop((source, tag))
        self._recent_answers.pop((source, tag))
        await self._index.forget_tags(source, tag, from_class)

    def forget_all(self) -> None:
        """Clear the memory. The index is not changed."""
        self._known.clear()
        self._recent_answers.clear()

    async def _variants(self, source: Source, tag: Tag, *, latest: bool = False) -> _TagsByVariant:
        """The cached tags of this tag. They stay in memory for seconds only, because another worker may have newer
        ones.
        """
        known = self._known.get((source, tag))
        now = self._clock.now()
        if latest or known is None or now >= known[1] + BELIEVED_SECONDS:
            read_at = now if latest else now - self._index.age(source)
            found = {
                (cached_tag.key.variant, cached_tag.caller_class): cached_tag
                for cached_tag in await self._index.find_tags(source, tag, latest=latest)
            }
            for place, cached_tag in (self._recent_answers.get((source, tag)) or {}).items():
                stored = found.get(place)
                if now < cached_tag.checked_at + BELIEVED_SECONDS and (
                    not stored or stored.checked_at < cached_tag.checked_at
                ):
                    found[place] = cached_tag
                    # Not believed for longer than if it had stayed in memory: another worker may have removed it.
                    read_at = min(read_at, cached_tag.checked_at)
            known = found, read_at
            self._known.put((source, tag), known)
        return known[0]


def _newest(cached_tags: _TagsByVariant, key: TagKey, classes: frozenset[CallerClass]) -> CachedTag | None:
    """The newest cached tag of this variant that was given to one of these classes. Of two with the same time, the one
    that is not anonymous.
    """
    known = [cached_tag for caller_class in classes if (cached_tag := cached_tags.get((key.variant, caller_class)))]
    return max(
        known, key=lambda cached_tag: (cached_tag.checked_at, cached_tag.caller_class != ANONYMOUS_CLASS), default=None
    )
