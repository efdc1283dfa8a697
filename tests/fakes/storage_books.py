"""Indexes and books in memory. Upstreams are known by their address and repositories by their name, as on disk."""

from collections.abc import Mapping
from dataclasses import replace

from application.ports.token_book import CallerIdentity
from application.ports.usage_index import Used
from domain.digest import Digest
from domain.names import Tag
from domain.records import CallerId, Grant, Item, Link, TagMark
from domain.trust import Stance
from domain.upstreams import Source, Upstream

VARIANTS = 16
Place = tuple[str, str]


class MemoryLinkIndex:
    """Plays the LinkIndex."""

    def __init__(self) -> None:
        self.links: dict[tuple[Place, object, Digest], Link] = {}

    async def find(self, item: Item) -> Link | None:
        link = self.links.get(_item(item))
        return link and replace(link, item=item)

    async def keep(self, link: Link) -> None:
        self.links[_item(link.item)] = link

    async def forget(self, item: Item) -> None:
        self.links.pop(_item(item), None)

    async def of(self, source: Source) -> list[Link]:
        found = [link for (place, _, _), link in self.links.items() if place == _place(source)]
        return [replace(link, item=replace(link.item, source=source)) for link in found]


class MemoryTagIndex:
    """Plays the TagIndex."""

    def __init__(self) -> None:
        self.marks: dict[tuple[Place, Tag, str], TagMark] = {}

    async def variants(self, source: Source, tag: Tag) -> list[TagMark]:
        found = [mark for key, mark in self.marks.items() if key[:2] == (_place(source), tag)]
        return [replace(mark, key=replace(mark.key, source=source)) for mark in found]

    async def keep(self, mark: TagMark) -> None:
        place, tag = _place(mark.key.source), mark.key.tag
        self.marks[place, tag, mark.key.variant] = mark
        others = [key for key in self.marks if key[:2] == (place, tag) and key[2] != mark.key.variant]
        for key in sorted(others, key=lambda key: self.marks[key].checked_at)[: max(0, len(others) + 1 - VARIANTS)]:
            del self.marks[key]

    async def forget(self, source: Source, tag: Tag | None) -> None:
        for key in [key for key in self.marks if key[0] == _place(source) and tag in {None, key[1]}]:
            del self.marks[key]

    async def of(self, upstream: Upstream) -> list[TagMark]:
        found = [mark for mark in self.marks.values() if mark.key.source.upstream.url == upstream.url]
        return [
            replace(mark, key=replace(mark.key, source=replace(mark.key.source, upstream=upstream))) for mark in found
        ]


class MemoryGrantBook:
    """Plays the GrantBook. `until` by caller and place: when each may be thrown away, which nobody does here."""

    def __init__(self) -> None:
        self.grants: dict[tuple[CallerId, Place], Grant] = {}
        self.until: dict[tuple[CallerId, Place], float] = {}

    async def find(self, caller: CallerId, source: Source) -> Grant | None:
        grant = self.grants.get((caller, _place(source)))
        return grant and replace(grant, source=source)

    async def keep(self, grant: Grant, until: float) -> None:
        key = grant.caller, _place(grant.source)
        self.grants[key], self.until[key] = grant, until

    async def forget(self, caller: CallerId, source: Source) -> None:
        self.grants.pop((caller, _place(source)), None)


class MemoryTokenBook:
    """Plays the TokenBook."""

    def __init__(self) -> None:
        self.identities: dict[str, CallerIdentity] = {}

    async def find(self, fingerprint: str) -> CallerIdentity | None:
        return self.identities.get(fingerprint)

    async def keep(self, fingerprint: str, identity: CallerIdentity) -> None:
        self.identities[fingerprint] = identity


class MemoryStanceBook:
    """Plays the StanceBook."""

    def __init__(self) -> None:
        self.stances: dict[str, Stance] = {}

    async def find(self, upstream: Upstream) -> Stance | None:
        return self.stances.get(upstream.url)

    async def keep(self, upstream: Upstream, stance: Stance) -> None:
        self.stances[upstream.url] = stance


class MemoryUsageIndex:
    """Plays the UsageIndex and the UsageTotal."""

    def __init__(self) -> None:
        self.entries: dict[Digest, Used] = {}

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

    async def total(self) -> int:
        return sum(one.size for one in self.entries.values())


class MemoryEpoch:
    """Plays the Epoch."""

    def __init__(self) -> None:
        self.number = 0

    async def read(self) -> int:
        return self.number

    async def advance(self) -> None:
        self.number += 1


def _place(source: Source) -> Place:
    return source.upstream.url, str(source.repository)


def _item(item: Item) -> tuple[Place, object, Digest]:
    return _place(item.source), item.kind, item.digest
