"""Manifests: their media types, the checks of their content, and the walk from an index to all its manifests."""

import base64
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from domain.digest import Digest
from domain.documents import (
    all_members_of,
    members_of,
    parse_json,
    parse_object,
    print_json,
    print_members,
    scalar_of,
)
from domain.errors import DigestInvalid, ReferrersUnsupported, RequestInvalid, UpstreamBroken
from domain.value import Value

BLOB_MEDIA_TYPE = "application/octet-stream"
INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_MEDIA_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    INDEX_MEDIA_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
)
"""The Accept types for clients that send none: without them, old registries send the withdrawn schema 1."""
MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes; the size that every registry must accept (OCI distribution specification, "Pushing Manifests")."""
UNKNOWN_PLATFORM = "unknown/unknown"
"""The platform of manifests that are not images, such as those of attestations (BuildKit)."""
DEPTH_LIMIT = 8
"""Maximum levels of indexes. Usual images have two."""
MANIFESTS_LIMIT = 10_000
"""Maximum manifests of one image. A manifest of 4 MiB can name more, and indexes can refer to each other in a cycle."""

_PLATFORM = re.compile(r"[a-z0-9._-]+(?:/[a-z0-9._-]+){1,2}")
_SIGNED_MANIFEST = "application/vnd.docker.distribution.manifest.v1+prettyjws"
_UNSIGNED_MANIFEST = "application/vnd.docker.distribution.manifest.v1+json"
_IMAGE_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
_KNOWN_MANIFESTS = frozenset({*MANIFEST_MEDIA_TYPES, _SIGNED_MANIFEST, _UNSIGNED_MANIFEST})
_VARIANT_TYPES = _KNOWN_MANIFESTS | {"*/*", "application/json"}
_UNSPECIFIC = frozenset({"", "text/plain", "application/json", "application/octet-stream", "binary/octet-stream"})
"""Types that servers use for any file, so they do not identify a manifest. Schema 1 often has one of them."""
_SIGNATURES_LIMIT = 64 * 1024
"""Bytes; each signature of schema 1 has a few hundred bytes."""
_SPACE = b" \t\r\n"
"""RFC 8259 section 2."""


def is_web_page(media_type: str | None) -> bool:
    """Whether the media type is HTML. A login portal or a proxy sends HTML, a registry sends no HTML manifests."""
    return bare_media_type(media_type) in {"text/html", "application/xhtml+xml"}


def identifies_manifest(media_type: str | None, digest: Digest | None) -> bool:
    """Whether the header of a response identifies a manifest: it has a specific media type, or an unspecific one with a
    Docker-Content-Digest, which a portal does not send.
    """
    return not is_web_page(media_type) and (digest is not None or bare_media_type(media_type) not in _UNSPECIFIC)


def signed_part(media_type: str | None, content: bytes) -> bytes:
    """The bytes that the digest of a manifest covers: the whole content, except for the withdrawn schema 1.

    The digest of schema 1 covers the signed part without the signatures, which a registry may make for each response
    (distribution, docs/content/spec/deprecated-schema-v1.md): the first `formatLength` bytes and `formatTail`, with the
    signatures between them. Schema 1 with an unspecific media type is identified by its schemaVersion.
    """
    bare = bare_media_type(media_type)
    if bare != _SIGNED_MANIFEST and bare not in _UNSPECIFIC:
        return content
    found = members_of(content, "schemaVersion", "signatures") or {}
    signatures = found.get("signatures", b"")
    is_schema_1 = bare == _SIGNED_MANIFEST or scalar_of(found.get("schemaVersion")) == 1
    if not is_schema_1 or len(signatures) > _SIGNATURES_LIMIT:
        return content
    try:
        protected = parse_object(_decode(parse_json(signatures)[0]["protected"]))  # type: ignore[index]
        length, tail = int(str(protected["formatLength"])), _decode(str(protected["formatTail"]))  # type: ignore[index]
    except (LookupError, TypeError, ValueError):
        return content
    signed = content[:length] + tail
    # The client also gets the bytes outside the signed part, so they may contain only the signatures.
    rest = content[length:].lstrip(_SPACE)
    is_rest_unsigned = tail.strip(_SPACE) == b"}" and rest[:1] == b"," and _is_signatures(b"{" + rest[1:])
    return signed if is_rest_unsigned and members_of(signed, "signatures") == {} else content


def _is_signatures(content: bytes) -> bool:
    """Whether the content is an object that contains only signatures. The length is bounded before parsing."""
    try:
        return len(content) <= 2 * _SIGNATURES_LIMIT and list(all_members_of(content)) == ["signatures"]
    except ValueError:
        return False


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def bare_media_type(media_type: str | None) -> str:
    """The media type without parameters, in lower case, because media types are case-insensitive (RFC 9110 section
    8.3.1).
    """
    return (media_type or "").partition(";")[0].strip().lower()


def without_parameters(media_type: str | None) -> str | None:
    """The media type for responses of the mirror: without parameters, and with manifest types in lower case, because
    clients compare them case-sensitively. None if there is no media type.
    """
    bare = bare_media_type(media_type)
    if bare in _KNOWN_MANIFESTS or bare == BLOB_MEDIA_TYPE:
        return bare
    return (media_type or "").partition(";")[0].strip() or None


def accepts(accept: Iterable[str], media_type: str) -> bool:
    """Whether the Accept lines allow this media type. Without Accept lines, every type is allowed."""
    accepted = _accepted_types(accept)
    return not accepted or "*/*" in accepted or bare_media_type(media_type) in accepted


def variant_of(accept: Iterable[str]) -> str | None:
    """A name for the variant of a tag that these Accept lines select: requests that accept the same known media types
    get the same manifest. None if they contain only unknown types, whose answer cannot be predicted.

    Ignores unknown types beside known ones, parameters and order: clients do not use weights, and a variant for each
    unknown type would let a client fill the index.
    """
    accepted = _accepted_types(accept)
    known = accepted & _VARIANT_TYPES
    return None if accepted and not known else ",".join(sorted(known))


def _accepted_types(accept: Iterable[str]) -> set[str]:
    return {bare_media_type(part) for line in accept for part in line.split(",")} - {""}


def check_manifest(media_type: str, content: bytes) -> None:
    """Reject content that is not a manifest, and ambiguous manifests (CVE-2021-41190).

    A manifest is a JSON document (OCI distribution specification, "Definitions"). Raises UpstreamBroken if the content
    is not a JSON object, has no member of a manifest, contradicts its media type, or is both an index and an image.
    """
    found = _read_manifest(content)
    if found is None:
        raise UpstreamBroken("the upstream sent a manifest that is not a JSON object")
    if is_web_page(media_type) or not _is_manifest(found):
        raise UpstreamBroken("the upstream sent something other than a manifest")
    stated = scalar_of(found.get("mediaType"))
    if isinstance(stated, str) and stated and bare_media_type(stated) != bare_media_type(media_type):
        raise UpstreamBroken("the upstream sent a manifest whose mediaType contradicts its Content-Type")
    if "manifests" in found and ("layers" in found or "config" in found):
        raise UpstreamBroken("the upstream sent a manifest that is both an index and an image")


def check_index(content: bytes) -> bytes:
    """The OCI image index (OCI image specification, image-index.md) of a referrers response. Replaces null by an empty
    list of manifests. Raises ReferrersUnsupported if the content is not an index.
    """
    found = _read_manifest(content) or {}
    stated = scalar_of(found.get("mediaType", b'""'))
    has_type = isinstance(stated, str) and bare_media_type(stated) in {"", INDEX_MEDIA_TYPE}
    is_null = found.get("manifests") == b"null"
    if not has_type or "layers" in found or "config" in found or not (is_null or _is_list(found, "manifests")):
        raise ReferrersUnsupported("the upstream did not answer with a list of referrers")
    if is_null:
        return print_members({"schemaVersion": b"2", "mediaType": print_json(INDEX_MEDIA_TYPE), "manifests": b"[]"})
    return content


def _read_manifest(content: bytes) -> dict[str, bytes] | None:
    return members_of(content, "schemaVersion", "mediaType", "manifests", "layers", "config", "fsLayers", "signatures")


def _is_list(found: dict[str, bytes], name: str) -> bool:
    return found.get(name, b"").startswith(b"[")


def _is_manifest(found: dict[str, bytes]) -> bool:
    """Whether the document has a member of a manifest: of images and indexes of Docker and OCI, of schema 1, of OCI
    artifacts or of unknown types. Other JSON, such as an error or the answer of a portal, does not.
    """
    version, stated = scalar_of(found.get("schemaVersion")), scalar_of(found.get("mediaType"))
    if (isinstance(version, int) and not isinstance(version, bool)) or (isinstance(stated, str) and stated):
        return True
    return any(_is_list(found, name) for name in ("manifests", "layers", "fsLayers"))


def stated_media_type(content: bytes) -> str:
    """The media type of a manifest without Content-Type, from the document.

    Docker's schema 2 always states its mediaType; OCI documents may omit it (OCI image specification, manifest.md and
    image-index.md). Raises UpstreamBroken if the document does not determine the type.
    """
    found = _read_manifest(content) or {}
    stated = scalar_of(found.get("mediaType"))
    if isinstance(stated, str) and (bare := without_parameters(stated)):
        return bare
    if scalar_of(found.get("schemaVersion")) == 1:
        return _SIGNED_MANIFEST if "signatures" in found else _UNSIGNED_MANIFEST
    if _is_list(found, "manifests"):
        return INDEX_MEDIA_TYPE
    if _is_list(found, "layers"):
        return _IMAGE_MEDIA_TYPE
    raise UpstreamBroken("the upstream sent a manifest without a media type")


class Descriptor(Value, frozen=True):
    """A descriptor (OCI image specification, descriptor.md). `platform`: `os/architecture[/variant]` or None."""

    digest: Digest
    size: int
    is_manifest: bool
    platform: str | None = None

    def is_for(self, platforms: Sequence[str]) -> bool:
        """Whether it is for one of these platforms: `linux/arm64` includes `linux/arm64/v8`. Always without platforms,
        which means all of them.
        """
        own = self.platform or UNKNOWN_PLATFORM
        return not platforms or any(own == one or own.startswith(f"{one}/") for one in platforms)


def parse_platform(text: str) -> str:
    """A platform as people write it: `os/architecture[/variant]` (OCI image specification, image-index.md). Raises
    RequestInvalid.
    """
    if not _PLATFORM.fullmatch(text):
        raise RequestInvalid(f"{text[:64]!r} is not a platform; write it like linux/amd64 or linux/arm/v7")
    return text


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
