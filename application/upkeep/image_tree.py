"""What belongs to an image, and how much of it is stored."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet

from domain.digest import Digest
from domain.manifests import ManifestWalk, descriptors_of
from domain.records import CachedTag
from domain.value import Value

ReadManifest = Callable[[Digest], Awaitable[bytes | None]]
"""The bytes of a stored manifest, whose digest is verified; None if it is not stored."""
FindStored = Callable[[Collection[Digest]], Awaitable[AbstractSet[Digest]]]
"""Those of the digests whose content is stored, and perhaps others."""


class TagEntry(Value, frozen=True):
    """A tag, and how much of its image is stored: `held` of `size` bytes, both None if its manifest is not stored."""

    cached_tag: CachedTag
    size: int | None
    held: int | None


async def image_tree(root: Digest, read: ReadManifest, platforms: Sequence[str] = ()) -> dict[Digest, int]:
    """The sizes in bytes of a manifest and of all content below it, as far as its manifests are stored and within the
    limits of ManifestWalk; empty if the manifest itself is not stored. `platforms`: those of an index that are wanted,
    each `os/architecture[/variant]`; none: all.
    """
    found: dict[Digest, int] = {}
    walk = ManifestWalk(root)
    for digest in walk:
        content = await read(digest)
        if content is None:
            continue
        found[digest] = len(content)
        named = [one for one in descriptors_of(content) if not one.is_manifest or one.is_for(platforms)]
        walk.add(named)
        for one in named:
            found.setdefault(one.digest, one.size)
    return found


async def tag_entries(cached_tags: Iterable[CachedTag], read: ReadManifest, find: FindStored) -> list[TagEntry]:
    """One entry for each tag, sorted by the names of repository and tag."""
    by_name = {(str(one.key.source.repository), str(one.key.tag)): one for one in cached_tags}
    entries = []
    for cached_tag in [by_name[name] for name in sorted(by_name)]:
        # Of an index, usually only the images of one platform are stored. The layers of images that were never
        # requested are not in the tree, so they do not count as missing.
        tree = await image_tree(cached_tag.digest, read)
        stored = await find(tree)
        held = sum(size for digest, size in tree.items() if digest in stored)
        entries.append(TagEntry(cached_tag, sum(tree.values()), held) if tree else TagEntry(cached_tag, None, None))
    return entries
