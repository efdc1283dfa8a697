"""Parsing and printing of JSON, with bounds for untrusted documents."""

import json
from functools import lru_cache
from typing import Any

import msgspec

# Building the objects of a 4 MiB document of empty lists takes more than 0.5 seconds, mostly in the garbage collector.
# So the functions for large documents build only the members that are needed.


def parse_json(content: str | bytes) -> object:
    """Parse a JSON document (RFC 8259). Raises ValueError if it is not JSON.

    Rejects `NaN`, `Infinity` and numbers outside the range of a double, which would be printed as `Infinity`. Also
    rejects documents whose nesting exhausts the interpreter's stack, which takes only a few kilobytes.
    """
    return _decode(content, Any)


def parse_object(content: str | bytes) -> dict[str, object] | None:
    """Parse a JSON object; None if the content is not a JSON object."""
    try:
        document = parse_json(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def members_of(content: str | bytes, *names: str) -> dict[str, bytes] | None:
    """The named members of a JSON object, each as the bytes of its value; None if it is not a JSON object.

    Checks the whole document but builds no objects: 4 MiB take about 20 ms.
    """
    try:
        found = _decode(content, _outline(names))
    except ValueError:
        return None
    return {name: bytes(value) for name in names if (value := getattr(found, name)) is not msgspec.UNSET}


def all_members_of(content: str | bytes) -> dict[str, bytes]:
    """All members of a small JSON object, in order. Raises ValueError."""
    return {name: bytes(value) for name, value in _decode(content, dict[str, msgspec.Raw]).items()}


def strings_of(content: bytes) -> list[str]:
    """The strings of a JSON list. Raises ValueError if it is not a list of strings."""
    strings: list[str] = _decode(content, list[str])
    return strings


def scalar_of(content: bytes | None) -> object:
    """The string, number, boolean or null of a member; None for lists, objects and missing members."""
    return None if content is None or content[:1] in {b"[", b"{"} else parse_json(content)


def print_json(document: object) -> bytes:
    """The document as JSON. Prints `NaN` and `Infinity` as null, and surrogates (bytes not in UTF-8) as escapes."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return json.dumps(document).encode()


def print_members(members: dict[str, bytes]) -> bytes:
    """A JSON object from values that are already JSON."""
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def is_nested_deeper(document: object, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep."""
    if not isinstance(document, dict | list):
        return False
    inner = document.values() if isinstance(document, dict) else document
    return any(levels == 0 or is_nested_deeper(one, levels - 1) for one in inner)


def one_line(text: str) -> str:
    """Untrusted text for a log. Replaces line breaks and other control characters, so it cannot forge log lines."""
    return "".join(character if character.isprintable() else "?" for character in text)


@lru_cache(maxsize=64)
def _outline(names: tuple[str, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct("Outline", [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in names])


def _decode(content: str | bytes, form: Any) -> Any:
    """Raises ValueError; the errors of msgspec and of invalid UTF-8 are subclasses."""
    text = content.decode() if isinstance(content, bytes) else content
    try:
        return msgspec.json.decode(text.removeprefix("\ufeff"), type=form)  # without a byte order mark
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
