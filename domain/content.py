"""Content of registries: media types, byte ranges and manifests."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
from domain.errors import RangeMalformed, RangeUnsatisfiable, ReferrersUnsupported, UpstreamBroken

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

_SIGNED_MANIFEST = "application/vnd.docker.distribution.manifest.v1+prettyjws"
_UNSIGNED_MANIFEST = "application/vnd.docker.distribution.manifest.v1+json"
_IMAGE_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
_KNOWN_MANIFESTS = frozenset({*MANIFEST_MEDIA_TYPES, _SIGNED_MANIFEST, _UNSIGNED_MANIFEST})
_VARIANT_TYPES = _KNOWN_MANIFESTS | {"*/*", "application/json"}
_UNSPECIFIC = frozenset({"", "text/plain", "application/json", "application/octet-stream", "binary/octet-stream"})
"""Types that servers use for any file, so they do not identify a manifest. Schema 1 often has one of them."""
_RANGE_SPEC = re.compile(r"([0-9]{0,19})-([0-9]{0,19})")
_SIGNATURES_LIMIT = 64 * 1024
"""Bytes; each signature of schema 1 has a few hundred bytes."""
_SPACE = b" \t\r\n"
"""RFC 8259 section 2."""
CLOSE_BYTES = 64 * 1024
"""Two ranges with at most this many bytes between them are requested together: this costs less than two requests."""
RANGES_LIMIT = 256
"""Maximum ranges in one request. Clients that load images lazily request one range per missing chunk. If the request
fails, they request fewer ranges (stargz-snapshotter) or the whole blob (containers/image)."""


@dataclass(frozen=True)
class Span:
    """The bytes from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class ByteRange:
    """One range of a Range header (RFC 9110 section 14.1.2); `first` None means the last `last` bytes."""

    first: int | None
    last: int | None

    def of(self, size: int) -> Span:
        """The bytes of the range in content of `size` bytes. Raises RangeUnsatisfiable if there are none."""
        return spans_of([self], size)[0]

    def is_answered_by(self, span: Span, size: int | None) -> bool:
        """Whether a partial response with these bytes answers the range. `size`: None if not stated."""
        if size is not None:
            return self.of(size) == span
        return span.length > 0 and self.first == span.start and (self.last is None or span.stop <= self.last + 1)

    def __str__(self) -> str:
        first, last = ("" if end is None else str(end) for end in (self.first, self.last))
        return f"bytes={first}-{last}"


def parse_ranges(header: str | None) -> tuple[ByteRange, ...]:
    """The ranges of a Range header (RFC 9110 section 14.2), in the order of the header. Empty if there is no header or
    its unit is not bytes: then the response has the whole content.

    Omits ranges that end before they begin (section 14.1.1: they are invalid). Raises RangeMalformed for malformed
    headers and more than RANGES_LIMIT ranges, and RangeUnsatisfiable if all ranges are omitted, because the OCI
    conformance suite requires 416.
    """
    unit, equals, specs = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    # A list may contain empty elements (section 5.6.1.2), but not only empty ones.
    texts = [text for text in (part.strip() for part in specs.split(",")) if text] or [""]
    if len(texts) > RANGES_LIMIT:
        raise RangeMalformed(f"a request may have at most {RANGES_LIMIT} byte ranges", detail={"ranges": len(texts)})
    ranges = tuple(one for one in map(_parse_range, texts) if one)
    if not ranges:
        raise RangeUnsatisfiable("the byte range ends before it begins")
    return ranges


def _parse_range(text: str) -> ByteRange | None:
    """None for a range that ends before it begins. Raises RangeMalformed."""
    matched = _RANGE_SPEC.fullmatch(text)
    if not matched or not any(matched.groups()):
        raise RangeMalformed("malformed byte range", detail={"range": text[:64]})
    first, last = (int(digits) if digits else None for digits in matched.groups())
    if first is not None and last is not None and last < first:
        return None
    return ByteRange(first, last)


def leading_range(ranges: Sequence[ByteRange]) -> ByteRange:
    """The first range, extended over the ranges that follow it in order with at most CLOSE_BYTES between them."""
    leading, *others = ranges
    for one in others:
        if leading.first is None or leading.last is None or one.first is None:
            break
        if not leading.last < one.first <= leading.last + 1 + CLOSE_BYTES:
            break
        leading = ByteRange(leading.first, one.last)
    return leading


def spans_of(ranges: Sequence[ByteRange], size: int) -> tuple[Span, ...]:
    """The bytes of the ranges in content of `size` bytes, in order, without ranges outside it (RFC 9110 section
    15.3.7.2). Raises RangeUnsatisfiable if all ranges are outside.
    """
    spans: list[Span] = []
    for one in ranges:
        if one.first is None:
            start, stop = max(0, size - (one.last or 0)), size
        else:
            start, stop = one.first, size if one.last is None else min(one.last + 1, size)
        if start < stop:
            spans.append(Span(start, stop))
    if not spans:
        raise RangeUnsatisfiable("the requested bytes lie outside the content", size=size)
    return tuple(spans)


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
