"""Descriptors in manifests, and the walk from an index to all its manifests."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from domain.digest import Digest
from domain.documents import parse_object
from domain.errors import DigestInvalid

DEPTH_LIMIT = 8
"""Maximum levels of indexes. Usual images have two."""
MANIFESTS_LIMIT = 10_000
"""Maximum manifests of one image. A manifest of 4 MiB can name more, and indexes can refer to each other in a cycle."""


@dataclass(frozen=True)
class Descriptor:
    """A descriptor (OCI image specification, descriptor.md). `platform`: `os/architecture[/variant]` or None."""

    digest: Digest
    size: int
    is_manifest: bool
    platform: str | None = None


class ManifestWalk:
    """Iterates over the manifests below a root, each once, at most DEPTH_LIMIT levels and MANIFESTS_LIMIT manifests.

    The caller must `add` the descriptors of each manifest before the next step.
    """

    def __init__(self, root: Digest | None = None) -> None:
        self._waiting = deque([(root, 0)] if root else [])
        self._seen = {root} if root else set()
        self._depth = 0
        self.is_cut = False
        """Whether a limit has excluded manifests."""

    def __iter__(self) -> Iterator[Digest]:
        while self._waiting:
            digest, self._depth = self._waiting.popleft()
            yield digest

    def add(self, named: Iterable[Descriptor]) -> None:
        """Add the descriptors of the manifest that the iteration returned last. Ignores blobs."""
        for one in named:
            if not one.is_manifest or one.digest in self._seen:
                continue
            if self._depth >= DEPTH_LIMIT or len(self._seen) >= MANIFESTS_LIMIT:
                self.is_cut = True
                return
            self._seen.add(one.digest)
            self._waiting.append((one.digest, self._depth + 1))


def descriptors_of(content: bytes) -> tuple[Descriptor, ...]:
    """All descriptors in the manifest, in order. Skips invalid ones, and layers at external URLs."""
    document = parse_object(content) or {}
    entries: list[tuple[object, bool]] = [(entry, True) for entry in _list(document.get("manifests"))]
    entries += [(entry, False) for entry in (document.get("config"), *_list(document.get("layers")))]
    # Schema 1 has no sizes, and another name for layers.
    entries += [({"digest": _text(entry, "blobSum"), "size": 0}, False) for entry in _list(document.get("fsLayers"))]
    found = (_descriptor(entry, is_manifest=is_manifest) for entry, is_manifest in entries)
    return tuple(one for one in found if one)


def _descriptor(entry: object, *, is_manifest: bool) -> Descriptor | None:
    if not isinstance(entry, dict) or entry.get("urls"):
        return None
    size = entry.get("size")
    try:
        digest = Digest.parse(str(entry.get("digest")))
    except DigestInvalid:
        return None
    platform = [_text(entry.get("platform"), name) for name in ("os", "architecture", "variant")]
    return Descriptor(
        digest,
        size if isinstance(size, int) and size >= 0 else 0,
        is_manifest,
        "/".join(word for word in platform if word) or None,
    )


def _text(entry: object, name: str) -> str:
    return str(entry.get(name) or "") if isinstance(entry, dict) else ""


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
