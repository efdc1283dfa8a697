"""BrowseCache: the cached repositories, tags and images that a viewer of the page may know of.

Nothing here asks an upstream for content, and no request does more than a bounded number of reads.
"""

import asyncio
from collections.abc import Sequence

from application.page.image_contents import ImageContents, Part
from application.page.viewer import Viewer
from application.page.visible import Sight, Visibility
from application.ports.index import ImageIndex
from domain.digest import Digest
from domain.image_details import (
    ContentEntry,
    ImageConfiguration,
    ManifestDetails,
    read_image_configuration,
    read_manifest_details,
)
from domain.names import Reference, Tag
from domain.records import CachedTag, ContentKind
from domain.upstreams import Source, Upstream
from domain.value import Value

_BATCH = 32
_BATCHES = 4
"""Reads of the list of repositories for one page. More than one or two are needed only if most repositories are hidden
from the viewer.
"""
_SHOWN_TAGS = 5
_REFERRER_TAGS = ("", ".sig", ".att", ".sbom")
"""The ends of the tags that stand for referrers where a registry lacks the API: the referrers tag schema of the OCI
distribution specification, and the tags of cosign.
"""
_MANIFESTS_READ = 24
"""Manifests of a repository that are read to find those that refer to an image."""


class RepositoryEntry(Value, frozen=True):
    """A repository. `tags`: the first of its tags that the viewer may know of; `has_more`: whether there are others."""

    source: Source
    tags: tuple[Tag, ...]
    has_more: bool


class RepositoryPage(Value, frozen=True):
    """`following`: the repository after which the next page begins; None on the last page. `is_cut`: too many
    repositories are hidden from the viewer to look for others.
    """

    entries: tuple[RepositoryEntry, ...]
    following: Source | None = None
    is_cut: bool = False


class TagPage(Value, frozen=True):
    """Cached tags of a repository. `following`: the tag after which the next page begins; None on the last page.
    `pinned`: see Sight.pinned.
    """

    source: Source
    tags: tuple[CachedTag, ...]
    following: Tag | None = None
    pinned: frozenset[Tag | Digest] = frozenset()


class Platform(Value, frozen=True):
    """An image of an index. `is_cached`: whether the viewer may know that its manifest is cached."""

    entry: ContentEntry
    is_cached: bool


class Referrer(Value, frozen=True):
    """A manifest that refers to an image, such as a signature or an SBOM. `kind`: its type, as far as it is known;
    `size`: bytes, 0 if it is not known.
    """

    digest: Digest
    kind: str
    size: int


class ImageDetails(Value, frozen=True):
    """One image. `digest`: of the manifest that was asked for; `cached_tag`: None if it was asked for by digest.

    `manifest`, `configuration` and `parts` are those of the image of one platform, `shown`. `manifest` is None if it is
    not cached, or if the viewer may not know that it is. `is_pinned`: as far as the viewer may know, see Sight.pinned.
    """

    source: Source
    digest: Digest
    cached_tag: CachedTag | None
    index: ManifestDetails | None
    platforms: tuple[Platform, ...]
    shown: Digest
    manifest: ManifestDetails | None
    configuration: ImageConfiguration | None
    parts: tuple[Part, ...]
    referrers: tuple[Referrer, ...]
    is_pinned: bool = False


class BrowseCache:
    """Shows only what Visibility lets the viewer know of. What does not exist and what the viewer may not know of gives
    the same answer.
    """

    def __init__(
        self,
        visibility: Visibility,
        images: ImageIndex,
        contents: ImageContents,
    ) -> None:
        self._visibility = visibility
        self._images = images
        self._contents = contents

    async def repositories(
        self,
        viewer: Viewer,
        upstreams: Sequence[Upstream],
        containing: str = "",
        after: Source | None = None,
        limit: int = 25,
    ) -> RepositoryPage:
        """One page of the repositories of these upstreams whose names contain the text."""
        sight, found, is_cut = self._visibility.of(viewer), list[Source](), False
        first = upstreams.index(after.upstream) if after and after.upstream in upstreams else 0
        for number, upstream in enumerate(upstreams[first:]):
            start = str(after.repository) if after and number == 0 else ""
            more, is_cut_here = await self._visible_of(sight, upstream, containing, start, limit + 1 - len(found))
            found, is_cut = found + more, is_cut or is_cut_here
            if len(found) > limit:
                break
        entries = await self._entries(sight, found[:limit])
        return RepositoryPage(entries, found[limit - 1] if len(found) > limit else None, is_cut)

    async def tags(self, viewer: Viewer, source: Source, after: str = "", limit: int = 50) -> TagPage | None:
        """One page of the tags. None if the viewer may not know that the repository exists."""
        sight = self._visibility.of(viewer)
        classes = await sight.classes(source)
        if not classes:
            return None
        found = await self._images.tags_in(source, classes, after, limit + 1)
        following = found[limit - 1].key.tag if len(found) > limit else None
        return TagPage(source, tuple(found[:limit]), following, await sight.pinned(source))

    async def image(
        self, viewer: Viewer, source: Source, reference: Reference, platform: Digest | None = None
    ) -> ImageDetails | None:
        """One image. `platform`: the image of the index to show, if not the first that is cached. None if the viewer
        may not know of the image.
        """
        sight = self._visibility.of(viewer)
        cached_tag = await sight.tag(source, reference.target) if isinstance(reference.target, Tag) else None
        digest = cached_tag.digest if cached_tag else reference.digest
        if digest is None or not (cached_tag or await sight.link(source, ContentKind.MANIFEST, digest)):
            return None
        manifest, platforms, index = await self._manifest(source, digest), tuple[Platform, ...](), None
        shown = digest
        if manifest and manifest.manifests:
            index, platforms = manifest, await self._platforms(sight, source, manifest)
            shown = _chosen(platforms, platform) or digest
            manifest = await self._manifest(source, shown) if shown != digest else None
        configuration, parts = None, tuple[Part, ...]()
        if manifest:
            config = await self._contents.small_blob(sight, source, manifest.config)
            configuration = read_image_configuration(config) if config else None
            parts = await self._contents.parts(sight, source, manifest.layers)
        referrers = await self._referrers(sight, source, shown, index)
        is_pinned = reference.target in await sight.pinned(source)
        return ImageDetails(
            source, digest, cached_tag, index, platforms, shown, manifest, configuration, parts, referrers, is_pinned
        )

    async def _visible_of(
        self, sight: Sight, upstream: Upstream, containing: str, after: str, limit: int
    ) -> tuple[list[Source], bool]:
        """At most `limit` repositories, and whether there may be more that were not looked for."""
        possible, found = await sight.possible_classes(upstream), list[Source]()
        if not possible:
            return [], False
        for _ in range(_BATCHES):
            names = await self._images.repositories(upstream, possible, containing, after, _BATCH)
            sources = [Source(upstream, name) for name in names]
            classes = await asyncio.gather(*map(sight.classes, sources))
            found += [source for source, seen in zip(sources, classes, strict=True) if seen]
            if len(found) >= limit or len(names) < _BATCH:
                return found[:limit], False
            after = str(names[-1])
        return found, True

    async def _entries(self, sight: Sight, sources: Sequence[Source]) -> tuple[RepositoryEntry, ...]:
        visible = {source: await sight.classes(source) for source in sources}
        found = await self._images.first_tags(visible, _SHOWN_TAGS + 1)
        return tuple(
            RepositoryEntry(source, tuple(tags[:_SHOWN_TAGS]), len(tags) > _SHOWN_TAGS)
            for source, tags in found.items()
        )

    async def _manifest(self, source: Source, digest: Digest) -> ManifestDetails | None:
        content = await self._contents.manifest(source, digest)
        return read_manifest_details(content) if content is not None else None

    async def _platforms(self, sight: Sight, source: Source, index: ManifestDetails) -> tuple[Platform, ...]:
        images = [one for one in index.manifests if not one.attests]
        held = await self._contents.cached(sight, source, ContentKind.MANIFEST, [one.digest for one in images])
        return tuple(Platform(one, one.digest in held) for one in images)

    async def _referrers(
        self, sight: Sight, source: Source, digest: Digest, index: ManifestDetails | None
    ) -> tuple[Referrer, ...]:
        """The cached manifests that refer to this one, as far as the viewer may know of them."""
        found = {
            one.digest: Referrer(one.digest, dict(one.annotations).get("vnd.docker.reference.type", ""), one.size)
            for one in (index.manifests if index else ())
            if one.attests == str(digest)
        }
        held = await self._contents.cached(sight, source, ContentKind.MANIFEST, list(found))
        found = {one: referrer for one, referrer in found.items() if one in held}
        for end in _REFERRER_TAGS:
            if tag := await sight.tag(source, Tag(f"{digest.algorithm}-{digest.encoded}{end}")):
                found[tag.digest] = Referrer(tag.digest, end.removeprefix(".") or tag.media_type, 0)
        manifests = await self._images.manifests_in(source, await sight.classes(source), _MANIFESTS_READ)
        for one in manifests:
            if one in found or not await sight.link(source, ContentKind.MANIFEST, one):
                continue
            details = await self._manifest(source, one)
            if details and details.subject == digest:
                kind = details.artifact_type or (details.config.media_type if details.config else "")
                found[one] = Referrer(one, kind, details.size)
        return tuple(found.values())


def _chosen(platforms: Sequence[Platform], wanted: Digest | None) -> Digest | None:
    """The platform that was asked for, if it is cached, or else the first that is."""
    cached = [one.entry.digest for one in platforms if one.is_cached]
    return wanted if wanted in cached else next(iter(cached), None)
