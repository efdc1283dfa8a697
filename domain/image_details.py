"""What manifests and image configurations say about an image, for people. Everything in them is untrusted: what has
another type than the specification says is left out, and lists and texts are cut.
"""

from collections.abc import Iterator

from domain.digest import Digest
from domain.documents import parse_object
from domain.errors import DigestInvalid
from domain.value import Value

PARSED_LIMIT = 512 * 1024
"""Bytes. Usual documents have less than 64 KiB. To build the objects of a larger one would block the event loop."""
_ENTRIES = 500
_TEXT = 2000
"""Characters of each text."""

Pairs = tuple[tuple[str, str], ...]


class ContentEntry(Value, frozen=True):
    """A descriptor (OCI image specification, descriptor.md). `size`: bytes; `platform`: `os/architecture[/variant]`, ""
    if it has none.
    """

    digest: Digest
    size: int
    media_type: str
    platform: str = ""
    annotations: Pairs = ()
    artifact_type: str = ""

    @property
    def attests(self) -> str:
        """The digest of the image that this entry attests, as BuildKit writes it; "" for an image."""
        return dict(self.annotations).get("vnd.docker.reference.digest", "")


class ManifestDetails(Value, frozen=True):
    """A manifest. `manifests`: those of an index; `config` and `layers`: those of an image."""

    manifests: tuple[ContentEntry, ...]
    config: ContentEntry | None
    layers: tuple[ContentEntry, ...]
    annotations: Pairs
    subject: Digest | None
    artifact_type: str

    @property
    def size(self) -> int:
        """Bytes of the configuration and all layers."""
        return sum(one.size for one in (*self.layers, *((self.config,) if self.config else ())))


class HistoryStep(Value, frozen=True):
    """One step of the build (OCI image specification, config.md). `has_layer`: whether it made a layer."""

    command: str
    created: str
    comment: str
    has_layer: bool


class ImageConfiguration(Value, frozen=True):
    """The configuration of an image. `facts`: the names and values of its simple members."""

    facts: Pairs
    environment: tuple[str, ...]
    labels: Pairs
    history: tuple[HistoryStep, ...]


def read_manifest_details(content: bytes) -> ManifestDetails | None:
    """None if the content is no JSON object, or larger than PARSED_LIMIT."""
    document = parse_object(content) if len(content) <= PARSED_LIMIT else None
    if document is None:
        return None
    subject = _entry(document.get("subject"))
    return ManifestDetails(
        tuple(_entries(document.get("manifests"))),
        _entry(document.get("config")),
        tuple(_entries(document.get("layers"))),
        _pairs(document.get("annotations")),
        subject.digest if subject else None,
        _text(document.get("artifactType")),
    )


def read_image_configuration(content: bytes) -> ImageConfiguration | None:
    """None if the content is no JSON object, or larger than PARSED_LIMIT."""
    document = parse_object(content) if len(content) <= PARSED_LIMIT else None
    if document is None:
        return None
    inner = document.get("config")
    config = inner if isinstance(inner, dict) else {}
    facts = {
        "platform": _platform(document),
        "created": _text(document.get("created")),
        "author": _text(document.get("author")),
        "entrypoint": _words(config.get("Entrypoint")),
        "command": _words(config.get("Cmd")),
        "user": _text(config.get("User")),
        "folder": _text(config.get("WorkingDir")),
        "ports": ", ".join(_keys(config.get("ExposedPorts"))),
        "volumes": ", ".join(_keys(config.get("Volumes"))),
    }
    return ImageConfiguration(
        tuple((name, value) for name, value in facts.items() if value),
        tuple(_text(one) for one in _list(config.get("Env")) if isinstance(one, str)),
        _pairs(config.get("Labels")),
        tuple(_steps(document.get("history"))),
    )


def _entries(value: object) -> Iterator[ContentEntry]:
    for one in _list(value):
        if entry := _entry(one):
            yield entry


def _entry(value: object) -> ContentEntry | None:
    if not isinstance(value, dict):
        return None
    try:
        digest = Digest.parse(str(value.get("digest")))
    except DigestInvalid:
        return None
    size, platform = value.get("size"), value.get("platform")
    return ContentEntry(
        digest,
        size if isinstance(size, int) and size >= 0 else 0,
        _text(value.get("mediaType")),
        _platform(platform),
        _pairs(value.get("annotations")),
        _text(value.get("artifactType")),
    )


def _platform(value: object) -> str:
    words = ("os", "architecture", "variant")
    return "/".join(word for name in words if (word := _text(value.get(name)))) if isinstance(value, dict) else ""


def _steps(value: object) -> Iterator[HistoryStep]:
    for one in _list(value):
        if isinstance(one, dict):
            command, created, comment = (_text(one.get(name)) for name in ("created_by", "created", "comment"))
            yield HistoryStep(command, created, comment, one.get("empty_layer") is not True)


def _pairs(value: object) -> Pairs:
    if not isinstance(value, dict):
        return ()
    return tuple((name[:_TEXT], _text(one)) for name, one in list(value.items())[:_ENTRIES] if isinstance(one, str))


def _words(value: object) -> str:
    return " ".join(_text(one) for one in _list(value) if isinstance(one, str))[:_TEXT]


def _keys(value: object) -> list[str]:
    return [name[:_TEXT] for name in list(value)[:_ENTRIES]] if isinstance(value, dict) else []


def _list(value: object) -> list[object]:
    return value[:_ENTRIES] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value[:_TEXT] if isinstance(value, str) else ""
