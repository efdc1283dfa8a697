"""TagMarks: what tags meant when the upstream was last asked, in memory and in the index."""

from dataclasses import replace

from application.cache.grants import BELIEVED_SECONDS
from application.cache.remembered import Remembered
from application.ports.tag_index import TagIndex
from domain.cache_policy import CachePolicy
from domain.digest import Digest
from domain.names import Tag
from domain.ports import Clock
from domain.records import TagKey, TagMark
from domain.upstreams import Source
from domain.variants import accepts

_REMEMBERED = 16384
_LONGEST_EXTENSION = 600.0


class TagMarks:
    """A mark is believed for a while; after that it is only good for standing in."""

    def __init__(self, index: TagIndex, policy: CachePolicy, clock: Clock) -> None:
        self._index = index
        self._policy = policy
        self._clock = clock
        self._known: Remembered[tuple[Source, Tag], tuple[dict[str, TagMark], float]] = Remembered(_REMEMBERED)

    async def find(self, key: TagKey) -> TagMark | None:
        """The newest mark, whichever worker made it."""
        known = self._known.get((key.source, key.tag))
        mark = known[0].get(key.variant) if known else None
        if mark is None or not self.is_fresh(mark):
            self._known.pop((key.source, key.tag))  # another worker may have asked meanwhile
        return (await self._variants(key.source, key.tag)).get(key.variant)

    async def stand_in(self, key: TagKey, accept: tuple[str, ...]) -> TagMark | None:
        """What may be told while the upstream cannot be asked: the same mark, or the newest one of another variant
        whose type is accepted too. Whoever warmed the tag seldom accepts the very types that the next client does.
        """
        marks = await self._variants(key.source, key.tag)
        others = sorted(marks.values(), key=lambda mark: -mark.checked_at)
        known = [mark for mark in (marks.get(key.variant), *others) if mark and accepts(accept, mark.media_type)]
        now = self._clock.now()
        return next((mark for mark in known if self._policy.may_stand_in(mark, now)), None)

    def is_fresh(self, mark: TagMark) -> bool:
        return self._policy.tag_is_fresh(mark, self._clock.now())

    def fresh_until(self, mark: TagMark) -> float:
        return self._policy.fresh_until(mark)

    async def learn(self, key: TagKey, digest: Digest, media_type: str) -> TagMark:
        """The upstream said just now what the tag means."""
        mark = TagMark(key, digest, media_type, self._clock.now())
        await self._keep(mark)
        return mark

    async def _keep(self, mark: TagMark) -> None:
        key = mark.key
        if known := self._known.get((key.source, key.tag)):
            known[0][key.variant] = mark
        await self._index.keep(mark)

    async def extend(self, mark: TagMark) -> None:
        """The upstream did not say what the tag means, but that it wants to be asked less: the mark is believed for its
        time once more, but ten minutes at most. A rule may let a tag be believed for a week; that is no reason not to
        ask for two.
        """
        now = self._clock.now()
        ttl = self._policy.fresh_until(mark) - mark.checked_at
        checked_at = max(mark.checked_at, now - max(0.0, ttl - _LONGEST_EXTENSION))
        await self._keep(replace(mark, checked_at=checked_at))

    async def forget(self, source: Source, tag: Tag) -> None:
        """The upstream does not have the tag, for whatever media types."""
        self._known.pop((source, tag))
        await self._index.forget(source, tag)

    def forget_all(self) -> None:
        """What is in memory; the index has what is true."""
        self._known.clear()

    async def _variants(self, source: Source, tag: Tag) -> dict[str, TagMark]:
        """Remembered for a moment only: another worker may know better."""
        known = self._known.get((source, tag))
        now = self._clock.now()
        if known is None or now >= known[1] + BELIEVED_SECONDS:
            found = {mark.key.variant: mark for mark in await self._index.variants(source, tag)}
            known = found, now
            self._known.put((source, tag), known)
        return known[0]
