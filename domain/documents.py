"""JSON and other text that somebody else wrote."""

import json
from functools import lru_cache
from typing import Any

import msgspec

# A document that consists of nothing but empty lists takes more than half a second to build where it has 4 MiB, and
# the collector of cyclic garbage has the most of it. So of a large document only the members that are needed are built.
_UNICODE_MARK = "\ufeff"


def parse_json(content: str | bytes) -> object:
    """The document (RFC 8259); raises ValueError for whatever is none.

    `NaN` and `Infinity` are no JSON, and numbers beyond the range of a double are refused: printed again, they would
    be `Infinity`. Nested deeply enough, a document of a few kilobytes exhausts the interpreter's stack, which is no
    fault of ours.
    """
    return _decode(content, Any)


def parse_object(content: str | bytes) -> dict[str, object] | None:
    """The JSON object; None for whatever is none."""
    try:
        document = parse_json(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def members_of(content: str | bytes, *names: str) -> dict[str, bytes] | None:
    """The named members of a JSON object, each as the bytes of its value; None for whatever is no JSON object.

    The whole document is checked, but nothing of it is built: 4 MiB take some 20 ms.
    """
    try:
        found = _decode(content, _outline(names))
    except ValueError:
        return None
    return {name: bytes(value) for name in names if (value := getattr(found, name)) is not msgspec.UNSET}


def all_members_of(content: str | bytes) -> dict[str, bytes]:
    """Every member of a JSON object, in order; for small documents. Raises ValueError."""
    return {name: bytes(value) for name, value in _decode(content, dict[str, msgspec.Raw]).items()}


def strings_of(content: bytes) -> list[str]:
    """The strings of a JSON list. Raises ValueError for whatever is no list of strings."""
    strings: list[str] = _decode(content, list[str])
    return strings


def scalar_of(content: bytes | None) -> object:
    """The string, number, truth value or null of a member; None for lists and objects, and where there is no member."""
    return None if content is None or content[:1] in {b"[", b"{"} else parse_json(content)


def print_json(document: object) -> bytes:
    """The document as JSON; numbers that JSON does not have (`NaN`, `Infinity`) as null, and bytes that are no UTF-8,
    which Python keeps as surrogates, as their escapes.
    """
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return json.dumps(document).encode()


def print_members(members: dict[str, bytes]) -> bytes:
    """A JSON object whose values are JSON already."""
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def is_nested_deeper(document: object, levels: int) -> bool:
    """Whether lists and objects stand in each other more than `levels` deep."""
    inner = [document]
    for _ in range(levels + 1):
        inner = [one for outer in inner for one in _inside(outer)]
    return bool(inner)


def one_line(text: str) -> str:
    """What somebody else said, fit for a log: it can forge no line of its own there."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _inside(document: object) -> list[object]:
    if isinstance(document, dict):
        return list(document.values())
    return document if isinstance(document, list) else []


@lru_cache(maxsize=64)
def _outline(names: tuple[str, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct("Outline", [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in names])


def _decode(content: str | bytes, form: Any) -> Any:
    """Raises ValueError, as msgspec's errors and those of invalid UTF-8 are."""
    text = content.decode() if isinstance(content, bytes) else content
    try:
        return msgspec.json.decode(text.removeprefix(_UNICODE_MARK), type=form)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
