"""The index in memory. As on disk, the keys are the address of the upstream and the name of the repository."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from application.ports.index import CallerIdentity, Occurrence, Stored, Used
from domain.digest import Digest
from domain.names import RepositoryName, Tag
from domain.records import CachedTag, CallerClass, CallerId, ContentKind, ContentLocation, Grant, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream
from tests.fakes.pins import MemoryPinIndex

VARIANTS = 16
Place = tuple[str, str]
LinkKey = tuple[Place, ContentKind, Digest, CallerClass]
TagKey = tuple[Place, Tag, str, CallerClass]


class MemoryKnowledgeIndex:
    """Implements KnowledgeIndex.

    `links` and `given_at` have one entry for each class of callers. `sent`: whether the content is public. `until`:
    when each grant may be removed, which does not happen here.
    """

    def __init__(self, bound: int = 1 << 30) -> None:
        """`bound` is the maximum number of links, and of cached tags, for each upstream."""
        self.links: dict[LinkKey, Link] = {}
        self.given_at: dict[LinkKey, float] = {}
        self.cached_tags: dict[TagKey, CachedTag] = {}
        self.sent: dict[tuple[Digest, str], bool] = {}
        self.grants: dict[tuple[CallerId, Place], Grant] = {}
        self.until: dict[tuple[CallerId, Place], float] = {}
        self.identities: dict[str, CallerIdentity] = {}
        self.upstream_auth: dict[str, UpstreamAuth] = {}
        self.number = 0
        self._bound = bound

    def age(self, subject: Source | str) -> float:
        return 0.0

    async def find_link(self, location: ContentLocation, since: float = 0.0) -> Link | None:
        keys = [key for key in self.links if key[:3] == _location(location) and self.given_at[key] > since]
        keys.sort(key=self.given_at.__getitem__)
        if not keys:
            return None
        return replace(self.links[keys[-1]], location=location, caller_classes=frozenset(key[3] for key in keys))

    async def links_of(self, source: Source) -> list[Link]:
        locations = dict.fromkeys(key[1:3] for key in self.links if key[0] == _place(source))
        found = [await self.find_link(ContentLocation(source, kind, digest)) for kind, digest in locations]
        return [link for link in found if link is not None]

    async def keep_link(self, link: Link, now: float) -> None:
        for caller_class in link.caller_classes:
            key = (*_location(link.location), caller_class)
            self.links[key], self.given_at[key] = link, now
        same = [key for key in self.links if key[0][0] == link.location.source.upstream.url]
        if len(same) > self._bound:
            same.sort(key=self.given_at.__getitem__)
            self._drop_links(same[: len(same) - int(self._bound * 0.9)])

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        self._drop_links([key for key in self.links if key[:3] == _location(location) and from_class in {None, key[3]}])

    async def find_tags(self, source: Source, tag: Tag, *, latest: bool = False) -> list[CachedTag]:
        found = [cached_tag for key, cached_tag in self.cached_tags.items() if key[:2] == (_place(source), tag)]
        return [replace(cached_tag, key=replace(cached_tag.key, source=source)) for cached_tag in found]

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        found = [
            cached_tag for cached_tag in self.cached_tags.values() if cached_tag.key.source.upstream.url == upstream.url
        ]
        return [
            replace(cached_tag, key=replace(cached_tag.key, source=replace(cached_tag.key.source, upstream=upstream)))
            for cached_tag in found
        ]

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        place, tag = _place(cached_tag.key.source), cached_tag.key.tag
        kept = (place, tag, cached_tag.key.variant, cached_tag.caller_class)
        self.cached_tags[kept] = cached_tag
        others = [
            key
            for key in self.cached_tags
            if key[:2] == (place, tag) and key[3] == cached_tag.caller_class and key != kept
        ]
        self._drop_oldest_tags(others, VARIANTS - 1, VARIANTS - 1)
        same = [key for key in self.cached_tags if key[0][0] == cached_tag.key.source.upstream.url]
        self._drop_oldest_tags(same, self._bound, int(self._bound * 0.9))

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        same = [key for key in self.cached_tags if key[0] == _place(source) and tag in {None, key[1]}]
        for key in same:
            if from_class in {None, key[3]}:
                del self.cached_tags[key]

    async def was_sent(self, upstream: Upstream, digest: Digest) -> bool:
        return (digest, upstream.url) in self.sent or any(
            is_public for (one, _), is_public in self.sent.items() if one == digest
        )

    async def keep_sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        key = digest, upstream.url
        self.sent[key] = is_public or self.sent.get(key, False)

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        gone = set(digests)
        self._drop_links([key for key in self.links if key[2] in gone])
        self.sent = {key: public for key, public in self.sent.items() if key[0] not in gone}
        for key in [key for key, cached_tag in self.cached_tags.items() if cached_tag.digest in gone]:
            del self.cached_tags[key]

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        grant = self.grants.get((caller, _place(source)))
        return grant and replace(grant, source=source)

    async def keep_grant(self, grant: Grant, until: float) -> None:
        key = grant.caller, _place(grant.source)
        self.grants[key], self.until[key] = grant, until

    async def forget_grant(self, caller: CallerId, source: Source) -> None:
        self.grants.pop((caller, _place(source)), None)

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        return self.identities.get(fingerprint)

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None:
        self.identities[fingerprint] = identity

    async def find_upstream_auth(self, upstream: Upstream) -> UpstreamAuth | None:
        return self.upstream_auth.get(upstream.url)

    async def keep_upstream_auth(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        self.upstream_auth[upstream.url] = auth

    async def epoch(self) -> int:
        return self.number

    async def advance_epoch(self) -> None:
        self.number += 1

    def _drop_links(self, keys: Iterable[LinkKey]) -> None:
        for key in keys:
            self.links.pop(key, None)
            self.given_at.pop(key, None)

    def _drop_oldest_tags(self, keys: list[TagKey], bound: int, kept: int) -> None:
        if len(keys) > bound:
            for key in sorted(keys, key=lambda key: self.cached_tags[key].checked_at)[: len(keys) - kept]:
                del self.cached_tags[key]


class MemoryUsageIndex:
    """Implements UsageIndex."""

    def __init__(self, index: MemoryKnowledgeIndex, pins: MemoryPinIndex | None = None) -> None:
        self._index = index
        self.entries: dict[Digest, Used] = {}
        self._pins = pins or MemoryPinIndex()

    async def keep(self, entries: list[Used]) -> None:
        self.entries.update({one.digest: one for one in entries})

    async def touch(self, times: Mapping[Digest, float]) -> None:
        for digest in times.keys() & self.entries.keys():
            known = self.entries[digest]
            self.entries[digest] = replace(known, used_at=max(known.used_at, times[digest]))

    async def forget(self, digests: list[Digest]) -> None:
        for digest in digests:
            self.entries.pop(digest, None)

    async def all(self) -> list[Used]:
        return sorted(self.entries.values(), key=lambda one: (one.used_at, str(one.digest)))

    async def evictable(self) -> list[Used]:
        if self._pins.is_broken:
            return []
        return [one for one in await self.all() if one.digest not in self._pins.content]

    async def pinned(self) -> Stored:
        sizes = [one.size for one in self.entries.values() if one.digest in self._pins.content]
        return Stored(len(sizes), sum(sizes))

    async def total(self) -> Stored:
        return Stored(len(self.entries), sum(one.size for one in self.entries.values()))

    async def by_upstream(self) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for digest, url in self._index.sent:
            if digest in self.entries:
                known = found.get(url, Stored())
                found[url] = Stored(known.count + 1, known.size + self.entries[digest].size)
        return found

    async def find(self, digests: Iterable[Digest]) -> dict[Digest, Used]:
        return {digest: self.entries[digest] for digest in digests if digest in self.entries}


class MemoryImageIndex:
    """Implements ImageIndex, on what is in the index in memory."""

    def __init__(self, index: MemoryKnowledgeIndex) -> None:
        self._index = index

    async def repositories(
        self, upstream: Upstream, classes: frozenset[CallerClass], containing: str, after: str, limit: int
    ) -> list[RepositoryName]:
        names = {
            name
            for (url, name), _, _, caller_class in self._index.cached_tags
            if url == upstream.url and caller_class in classes and containing in name and name > after
        }
        return [RepositoryName(name) for name in sorted(names)][:limit]

    async def first_tags(
        self, repositories: Mapping[Source, frozenset[CallerClass]], limit: int
    ) -> dict[Source, list[Tag]]:
        return {
            source: [one.key.tag for one in self._newest(source, classes, "")][:limit]
            for source, classes in repositories.items()
        }

    async def tags_in(self, source: Source, classes: frozenset[CallerClass], after: str, limit: int) -> list[CachedTag]:
        return self._newest(source, classes, after)[:limit]

    def _newest(self, source: Source, classes: frozenset[CallerClass], after: str) -> list[CachedTag]:
        newest: dict[str, CachedTag] = {}
        for (place, tag, _, caller_class), one in self._index.cached_tags.items():
            name, known = str(tag), newest.get(str(tag))
            if place == _place(source) and caller_class in classes and name > after:
                newest[name] = one if known is None or one.checked_at > known.checked_at else known
        return [newest[name] for name in sorted(newest)]

    async def manifests_in(self, source: Source, classes: frozenset[CallerClass], limit: int) -> list[Digest]:
        given: dict[Digest, float] = {}
        for (place, kind, digest, caller_class), given_at in self._index.given_at.items():
            if place == _place(source) and kind is ContentKind.MANIFEST and caller_class in classes:
                given[digest] = max(given_at, given.get(digest, 0.0))
        return sorted(given, key=lambda digest: (-given[digest], str(digest)))[:limit]

    async def occurrences(self, digests: Iterable[Digest], limit: int) -> list[Occurrence]:
        wanted = set(digests)
        found = [
            Occurrence(url, name, digest, caller_class)
            for (url, name), _, digest, caller_class in self._index.links
            if digest in wanted
        ]
        return found[:limit]


def _place(source: Source) -> Place:
    return source.upstream.url, str(source.repository)


def _location(location: ContentLocation) -> tuple[Place, ContentKind, Digest]:
    return _place(location.source), location.kind, location.digest
