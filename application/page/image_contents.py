"""ImageContents: reads the content of images from the cache, and says which parts of an image are cached."""

import asyncio
from collections.abc import Sequence

from application.access.provenance import Provenance
from application.manifests.manifest_cache import ManifestCache
from application.page.visible import Sight
from application.ports.content import ContentStore, StorageRefused
from application.ports.index import ImageIndex, Occurrence, UsageIndex, Used
from domain.digest import Digest
from domain.errors import NameInvalid
from domain.image_details import PARSED_LIMIT, ContentEntry
from domain.names import RepositoryName
from domain.records import ContentKind
from domain.upstream_table import UpstreamTable
from domain.upstreams import Source
from domain.value import Value

_OCCURRENCES = 1000
_REPOSITORIES = 60
"""Repositories for which one page checks whether the viewer may know of them."""
_SHOWN_REPOSITORIES = 5

_Place = tuple[str, str]
"""The URL of an upstream, and a repository there."""


class Part(Value, frozen=True):
    """A layer. `is_cached`: whether the viewer may know that it is cached. `used_at`: its last use in seconds since
    1970, None if it is not cached, or if it may have been used through a repository that the viewer may not know of.
    `others`: the first of the other repositories with this layer that the viewer may know of.
    """

    entry: ContentEntry
    is_cached: bool
    used_at: float | None
    others: tuple[Source, ...]


class ImageContents:
    """Reading for the page does not count as use: otherwise a look at an image would keep it in the cache."""

    def __init__(
        self,
        images: ImageIndex,
        usage: UsageIndex,
        upstreams: UpstreamTable,
        manifest_cache: ManifestCache,
        provenance: Provenance,
        store: ContentStore,
    ) -> None:
        self._images = images
        self._usage = usage
        self._by_url = {one.url: one for one in upstreams.upstreams}
        self._manifest_cache = manifest_cache
        self._provenance = provenance
        self._store = store

    async def manifest(self, source: Source, digest: Digest) -> bytes | None:
        """The cached manifest, which the viewer may know of. None if it is not served for this upstream."""
        if not await self._provenance.serves(source.upstream, digest):
            return None
        return await self._manifest_cache.look(digest)

    async def small_blob(self, sight: Sight, source: Source, entry: ContentEntry | None) -> bytes | None:
        """The cached blob. None if it is not cached, if the viewer may not know that it is, or if it is large."""
        if entry is None or not await self.cached(sight, source, ContentKind.BLOB, [entry.digest]):
            return None
        stored = await self._store.open(entry.digest)
        if stored is None:
            return None
        try:
            content = await stored.read() if stored.size <= PARSED_LIMIT else b""
        except StorageRefused:
            return None
        finally:
            stored.file.close()
        return content if entry.digest.matches(content) else None

    async def cached(
        self, sight: Sight, source: Source, kind: ContentKind, digests: Sequence[Digest]
    ) -> dict[Digest, Used]:
        """The content that is cached and served for the upstream of the repository, as far as the viewer may know that
        the repository contains it.
        """
        links = await asyncio.gather(*(sight.link(source, kind, digest) for digest in digests))
        known = [link.location.digest for link in links if link]
        served = await asyncio.gather(*(self._provenance.serves(source.upstream, digest) for digest in known))
        return await self._usage.find([digest for digest, is_served in zip(known, served, strict=True) if is_served])

    async def parts(self, sight: Sight, source: Source, layers: Sequence[ContentEntry]) -> tuple[Part, ...]:
        """The layers of an image, with their state in the cache."""
        held = await self.cached(sight, source, ContentKind.BLOB, list({one.digest for one in layers}))
        occurrences = await self._images.occurrences(held, _OCCURRENCES)
        places = await self._places(sight, occurrences)
        is_complete = len(occurrences) < _OCCURRENCES
        parts = []
        for layer in layers:
            used = held.get(layer.digest)
            seen = {place: places.get((layer.digest, place)) for place in _places_of(occurrences, layer.digest)}
            others = [other for other in seen.values() if other and other != source][:_SHOWN_REPOSITORIES]
            links = await asyncio.gather(*(sight.link(other, ContentKind.BLOB, layer.digest) for other in others))
            used_at = used.used_at if used and is_complete and all(seen.values()) else None
            shared = tuple(link.location.source for link in links if link)
            parts.append(Part(layer, used is not None, used_at, shared))
        return tuple(parts)

    async def _places(self, sight: Sight, occurrences: Sequence[Occurrence]) -> dict[tuple[Digest, _Place], Source]:
        """The repositories of which the viewer may know that they contain the content."""
        found = dict[tuple[Digest, _Place], Source]()
        sources = {place: self._source(*place) for place in dict.fromkeys(map(_place, occurrences))}
        for source in list(filter(None, sources.values()))[:_REPOSITORIES]:
            classes = await sight.classes(source)
            for one in occurrences:
                if sources[_place(one)] == source and one.caller_class in classes:
                    found[one.digest, _place(one)] = source
        return found

    def _source(self, url: str, repository: str) -> Source | None:
        """None if the upstream is no longer mirrored."""
        upstream = self._by_url.get(url)
        try:
            return Source(upstream, RepositoryName(repository)) if upstream else None
        except NameInvalid:
            return None


def _place(one: Occurrence) -> _Place:
    return one.upstream_url, one.repository


def _places_of(occurrences: Sequence[Occurrence], digest: Digest) -> list[_Place]:
    return list(dict.fromkeys(_place(one) for one in occurrences if one.digest == digest))
