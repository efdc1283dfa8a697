"""What a manifest names: its config and layers, or the manifests of an index."""

from dataclasses import dataclass

from domain.digest import Digest
from domain.documents import parse_object
from domain.errors import DigestInvalid


@dataclass(frozen=True)
class Descriptor:
    """OCI image specification, descriptor.md. `platform` is `os/architecture[/variant]`, None where there is none."""

    digest: Digest
    size: int
    is_manifest: bool
    platform: str | None = None


def descriptors_of(content: bytes) -> tuple[Descriptor, ...]:
    """All that are named, in order; what cannot be read is passed over, and so are layers that lie elsewhere."""
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
    whole = size if isinstance(size, int) and size >= 0 else 0
    return Descriptor(digest, whole, is_manifest, _platform(entry.get("platform")))


def _platform(value: object) -> str | None:
    words = [_text(value, name) for name in ("os", "architecture", "variant")]
    return "/".join(word for word in words if word) or None


def _text(entry: object, name: str) -> str:
    return str(entry.get(name) or "") if isinstance(entry, dict) else ""


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
