"""How a setting is defined, and how given values are read by the definitions."""

import re
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LONGEST_SHOWN = 200
"""Characters."""


class Refusal(ValueError):
    """The reason why a value is refused, if `Parser.takes` does not say enough."""


@dataclass(frozen=True)
class Parser(Generic[T_co]):
    """`takes` describes the values that `parse` accepts. For any other value `parse` raises
    ValueError or LookupError.
    """

    takes: str
    parse: Callable[[Any], T_co]


@dataclass(frozen=True)
class Definition:
    """The definition of a setting. `description` is Markdown for the documentation.

    `default_text` is the documentation's wording of the default; "" if the value itself is clear. `variable` is the
    environment variable of a setting of the only upstream; every other setting has its own name in capitals. The value
    of a secret can also stand in a file, which the setting NAME_FILE names. The value of a secret, and of a setting
    that `may_hold_secret`, is never repeated in a message.
    """

    parser: Parser[object]
    description: str
    default_text: str = ""
    variable: str = ""
    is_secret: bool = False
    may_hold_secret: bool = False


def setting(default: T, parser: Parser[T], description: str, **details: Any) -> T:
    """A field of a dataclass, with its definition. `details` are further fields of Definition."""
    one = Definition(parser, description, **details)
    return field(default=default, repr=not one.may_hold_secret, metadata={"definition": one})


def computed_setting(compute: Callable[[], T], parser: Parser[T], description: str, **details: Any) -> T:
    """As `setting`, with a default that is computed for each instance."""
    return field(default_factory=compute, metadata={"definition": Definition(parser, description, **details)})


def definitions_of(kind: type) -> dict[str, Definition]:
    """The definitions of the settings of this class, by name."""
    return {one.name: one.metadata["definition"] for one in fields(kind) if "definition" in one.metadata}


def keys_of(kind: type) -> frozenset[str]:
    """The names under which values of these settings can be given."""
    found = definitions_of(kind)
    return frozenset(found) | {f"{name}_file" for name, one in found.items() if one.is_secret}


def check_keys(given: Iterable[str], known: Collection[str], prefix: str = "") -> None:
    """Raises ValueError for an unknown key. Its message begins with `prefix`."""
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise ValueError(f"{prefix}{key}: is not a setting" + (f"; did you mean {near[0]}?" if near else ""))


def read(kind: type[T], given: Mapping[str, Any], labels: Mapping[str, str]) -> T:
    """An instance of this class from the given values by name. None counts as not given, and names of other settings
    are ignored.

    Raises ValueError, which says what the setting got and what it takes. `labels` are the names of the settings in
    messages.
    """
    values = {}
    for name, one in definitions_of(kind).items():
        value = given.get(name)
        if one.is_secret and given.get(f"{name}_file") is not None:
            value = _secret_in_file(name, given, labels)
        if value is None:
            continue
        try:
            values[name] = one.parser.parse(value)
        except (ValueError, LookupError) as error:
            reason = str(error) if isinstance(error, Refusal) else f"takes {one.parser.takes}"
            got = "" if one.is_secret or one.may_hold_secret else shown(name, value)
            # The cause may hold a secret.
            raise ValueError(f"{labels[name]}: {got}{reason}") from None
    return kind(**values)


def _secret_in_file(name: str, given: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The content of the file that the setting NAME_FILE names. Raises ValueError."""
    file = f"{name}_file"
    if name in given:
        raise ValueError(f"{labels[name]}: is set, and {labels[file].split()[-1]} too; takes one of them")
    try:
        # Editors end a file with a newline.
        return read_text(Path(str(given[file]))).rstrip("\r\n")
    except ValueError as error:
        raise ValueError(f"{labels[file]}: {shown(file, given[file])}{error}; takes the path of a file") from error


def read_text(path: Path) -> str:
    """Raises Refusal. Only regular files are opened: opening a pipe would wait for its writer, and a second read of a
    pipe would find it empty, which could mean no accounts.
    """
    try:
        check_is_file(path)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refusal("cannot be read (not UTF-8 text)") from error
    except OSError as error:
        raise Refusal(f"cannot be read ({error.strerror})") from error


def check_is_file(path: Path) -> None:
    """Raises OSError if the path is not that of a regular file."""
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(0, "Is a directory")
    if not stat.S_ISREG(kind):
        raise OSError(0, "Is a pipe or a device, not a file")


def shown(name: str, value: object) -> str:
    """How a message repeats a value; "" if the value may be a secret by mistake, or is a list of tables."""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # People set NAME_FILE or a key to the secret itself instead of a path. Only a path is repeated.
    if name.endswith(("_file", "_key")) and not text.startswith(("/", ".")):
        return ""
    # People put logins into addresses, also where it is not allowed.
    text = re.sub(r"^.*@", "***@", text, flags=re.DOTALL)
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    return f"got {text!r}; " if isinstance(value, str | Path) else f"got {text}; "
