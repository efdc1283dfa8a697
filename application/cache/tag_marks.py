"""TagMarks: what tags meant when the upstream was last asked, in memory and in the index."""

from dataclasses import replace

from application.cache.grants import BELIEVED_SECONDS
from application.cache.remembered import Remembered
from application.ports.tag_index import TagIndex
from domain.cache_policy import CachePolicy
from domain.digest import Digest
from domain.names import Tag
from domain.ports import Clock
from domain.records import ANONYMOUS_CLASS, CallerClass, TagKey, TagMark
from domain.upstreams import Source
from domain.variants import accepts

_REMEMBERED = 16384
_LONGEST_EXTENSION = 600.0
_Marks = dict[tuple[str, CallerClass], TagMark]
"""Of one tag, by variant and class of callers."""


class TagMarks:
    """A mark is believed for a while; after that it is only good for standing in."""

    def __init__(self, index: TagIndex, policy: CachePolicy, clock: Clock) -> None:
        self._index = index
        self._policy = policy
        self._clock = clock
        self._known: Remembered[tuple[Source, Tag], tuple[_Marks, float]] = Remembered(_REMEMBERED)
        self._learnt: Remembered[tuple[Source, Tag], _Marks] = Remembered(_REMEMBERED)
        """What this process has learnt. While the index is being written, who reads it would miss that."""

    async def find(self, key: TagKey, classes: frozenset[CallerClass]) -> TagMark | None:
        """The newest mark that was given to one of these classes of callers, whichever worker made it."""
        known = self._known.get((key.source, key.tag))
        mark = _newest(known[0], key, classes) if known else None
        if mark is None or not self.is_fresh(mark):
            self._known.pop((key.source, key.tag))  # another worker may have asked meanwhile
        return _newest(await self._variants(key.source, key.tag), key, classes)

    async def stand_in(self, key: TagKey, accept: tuple[str, ...], classes: frozenset[CallerClass]) -> TagMark | None:
        """What may be told while the upstream cannot be asked, of what it gave to these classes of callers: the newest
        mark of this variant, or of another variant whose type is accepted too. Whoever warmed the tag seldom accepts
        the very types that the next client does.
        """
        marks = await self._variants(key.source, key.tag)
        others = sorted(marks.values(), key=lambda mark: -mark.checked_at)
        known = [
            mark
            for mark in (_newest(marks, key, classes), *others)
            if mark and mark.given_to in classes and accepts(accept, mark.media_type)
        ]
        now = self._clock.now()
        return next((mark for mark in known if self._policy.may_stand_in(mark, now)), None)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock.now()

    async def recent(self, source: Source, tag: Tag, classes: frozenset[CallerClass], since: float) -> list[TagMark]:
        """What the tag means for these classes of callers and whatever media types, where that is fresh or was learnt
        `since`.
        """
        marks = (await self._variants(source, tag)).values()
        return [
            mark for mark in marks if mark.given_to in classes and (self.is_fresh(mark) or mark.checked_at >= since)
        ]

    def is_fresh(self, mark: TagMark) -> bool:
        return self._policy.tag_is_fresh(mark, self._clock.now())

    def fresh_until(self, mark: TagMark) -> float:
        return self._policy.fresh_until(mark)

    async def learn(self, key: TagKey, digest: Digest, media_type: str, given_to: CallerClass) -> TagMark:
        """The upstream said just now to this class of callers what the tag means."""
        mark = TagMark(key, digest, media_type, self._clock.now(), given_to)
        learnt = self._learnt.get((key.source, key.tag)) or {}
        self._learnt.put((key.source, key.tag), learnt | {(key.variant, given_to): mark})
        await self._keep(mark)
        return mark

    async def _keep(self, mark: TagMark) -> None:
        key = mark.key
        if known := self._known.get((key.source, key.tag)):
            known[0][key.variant, mark.given_to] = mark
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
        self._learnt.pop((source, tag))
        await self._index.forget(source, tag)

    async def withdraw(self, source: Source, tag: Tag, from_class: CallerClass) -> None:
        """The upstream refused the tag to this class of callers."""
        self._known.pop((source, tag))
        self._learnt.pop((source, tag))
        await self._index.forget(source, tag, from_class)

    def forget_all(self) -> None:
        """What is in memory; the index has what is true."""
        self._known.clear()
        self._learnt.clear()

    async def _variants(self, source: Source, tag: Tag) -> _Marks:
        """Remembered for a moment only: another worker may know better."""
        known = self._known.get((source, tag))
        now = self._clock.now()
        if known is None or now >= known[1] + BELIEVED_SECONDS:
            found = {(mark.key.variant, mark.given_to): mark for mark in await self._index.variants(source, tag)}
            for place, mark in (self._learnt.get((source, tag)) or {}).items():
                stored = found.get(place)
                if now < mark.checked_at + BELIEVED_SECONDS and (not stored or stored.checked_at < mark.checked_at):
                    found[place] = mark
            known = found, now
            self._known.put((source, tag), known)
        return known[0]


def _newest(marks: _Marks, key: TagKey, classes: frozenset[CallerClass]) -> TagMark | None:
    """The newest mark of this variant among those of these classes; of two of one moment, not the anonymous one."""
    known = [mark for given_to in classes if (mark := marks.get((key.variant, given_to)))]
    return max(known, key=lambda mark: (mark.checked_at, mark.given_to != ANONYMOUS_CLASS), default=None)
