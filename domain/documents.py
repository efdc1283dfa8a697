"""JSON and other text that somebody else wrote."""

import json


def parse_json(content: str | bytes) -> object:
    """The document; raises ValueError for whatever is none.

    Nested deeply enough, a document of a few kilobytes exhausts the interpreter's stack: no fault of ours, and
    no reason for an answer other than to any other nonsense.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_object(content: str | bytes) -> dict[str, object] | None:
    """The JSON object; None for whatever is none."""
    try:
        document = parse_json(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def one_line(text: str) -> str:
    """What somebody else said, fit for a log: it can forge no line of its own there."""
    return "".join(character if character.isprintable() else "?" for character in text)
