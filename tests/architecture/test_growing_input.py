"""The time of regular expressions on foreign text is linear in its length."""

import ast
import re
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest

from domain.access import ScopeSet
from domain.allowance import read_rate_limit, seconds_to_wait
from domain.authorization import parse_authorization
from domain.byte_ranges import parse_ranges
from domain.challenge import parse_challenges
from domain.http_fields import next_link, read_warnings
from tests.architecture.sources import PACKAGES, files, module_of, name_of, parsed

METHODS = frozenset({"match", "fullmatch", "search", "sub", "split", "findall", "finditer"})
LENGTH = 4_000
"""The number of characters of the short text; the long text has four times as many."""
NOTICED = 0.02
"""Seconds of CPU time."""
UNITS = (
    *(
        "a",
        "a ",
        "a,",
        "a=",
        'a="',
        "a;",
        ";a",
        "; a=b",
        '"',
        '"a',
        "\\",
        '\\"',
        "\\a",
        " ",
        "\t",
        ",",
        ", ",
        ";",
        "=",
        ":",
    ),
    *(
        "<",
        ">",
        "<>",
        "<a",
        "-",
        "_",
        ".",
        "/",
        "a/",
        "a-",
        "0",
        "0-",
        "0,",
        ":0",
        "299 ",
        '299 - "',
        'rel="next ',
        "%",
        "[",
    ),
    *('a="b",', 'a="b" ', "next ", "1 ", ", 299 a ", "@", "a@", "*", "**", "(", ")", "\n", "é"),
)
ENDS = ("", "\n", "!")


def patterns() -> Iterator[tuple[str, str, str | bytes]]:
    """The place, the method and the text of each pattern."""
    for path in files(*PACKAGES):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in METHODS:
                continue
            if (text := _pattern(path, node)) is not None:
                yield f"{name_of(path)}:{node.lineno}", node.func.attr, text


def _pattern(path: Path, call: ast.Call) -> str | bytes | None:
    owner = call.func.value  # type: ignore[attr-defined]
    if not isinstance(owner, ast.Name):
        return None
    if owner.id != "re":
        found = getattr(import_module(module_of(path)), owner.id, None)
        return found.pattern if isinstance(found, re.Pattern) else None
    text = call.args[0]
    if isinstance(text, ast.Constant):
        return text.value if isinstance(text.value, bytes) else str(text.value)
    assert isinstance(text, ast.JoinedStr)
    return "".join(part.value if isinstance(part, ast.Constant) else "64" for part in text.values)


ALL = sorted(set(patterns()), key=str)


def seconds(step: Callable[[], object]) -> float:
    """CPU time of one run."""
    began = time.process_time()
    step()
    return time.process_time() - began


def ratio(long: Callable[[], object], short: Callable[[], object]) -> float:
    """How many times as long the first step takes.
    Another process on the machine can only make a run slower, so the fastest of several runs are compared. Short and
    long runs alternate: what slows the machine for a while slows both.
    """
    runs = [(seconds(long), seconds(short)) for _ in range(6)]
    return min(time for time, _ in runs) / min(time for _, time in runs)


def is_slow(step: Callable[[str], object], unit: str, end: str) -> bool:
    """Whether four times the input takes much more than four times as long.
    A quadratic step takes sixteen times as long and at this length exceeds NOTICED, so faster steps are not compared.
    """
    short, long = (unit * (length // len(unit)) + end for length in (LENGTH, 4 * LENGTH))
    return seconds(lambda: step(long)) >= NOTICED and ratio(lambda: step(long), lambda: step(short)) > 9


def test_the_patterns_are_found() -> None:
    assert len(ALL) > 30
    assert {method for _, method, _ in ALL} >= {"fullmatch", "match"}


@pytest.mark.parametrize(("place", "method", "pattern"), ALL, ids=[place for place, _, _ in ALL])
def test_a_pattern_takes_time_in_proportion_to_its_input(place: str, method: str, pattern: str | bytes) -> None:
    compiled = re.compile(pattern)

    def step(text: str) -> object:
        content = text.encode() if isinstance(pattern, bytes) else text
        if method == "sub":
            return compiled.sub(type(content)(), content)
        found = getattr(compiled, method)(content)
        return list(found) if method == "finditer" else found

    slow = [(unit, end) for unit, end in product(UNITS, ENDS) if is_slow(step, unit, end)]
    assert slow == [], place


READERS: dict[str, Callable[[str], object]] = {
    "WWW-Authenticate": lambda text: parse_challenges([text]),
    "WWW-Authenticate behind a scheme": lambda text: parse_challenges([f"Bearer {text}"]),
    "Link": next_link,
    "Link relations": lambda text: next_link(f'<a>; rel="{text}'),
    "Link parameters": lambda text: next_link(f"<a>{text}"),
    "Warning": lambda text: read_warnings([text]),
    "RateLimit": lambda text: read_rate_limit(text, text),
    "Retry-After": lambda text: seconds_to_wait(text, 0.0),
    "Authorization": lambda text: parse_authorization(f"Bearer {text}"),
    "Range": lambda text: _refused(parse_ranges, f"bytes={text}"),
    "scope": lambda text: _refused(ScopeSet.parse, text),
}


def _refused(read: Callable[[str], object], text: str) -> object:
    try:
        return read(text)
    except Exception as error:  # noqa: BLE001 - what is refused has been read as well
        return error


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_header_is_read_in_time_in_proportion_to_its_length(reader: str) -> None:
    assert [(unit, end) for unit, end in product(UNITS, ENDS) if is_slow(READERS[reader], unit, end)] == []


@pytest.mark.alone
@pytest.mark.parametrize("pattern", [r'rel="(?:[^"]*\s)?next(?:\s[^"]*)?"', r"[0-9]*x", r"^(?:a|,|a,)*$"])
def test_slow_patterns_are_found(pattern: str) -> None:
    """The first pattern was once used for the Link header. The last one takes exponential time: its text is short."""
    compiled = re.compile(pattern)
    if "|" in pattern:
        assert ratio(lambda: compiled.search("a," * 12 + "!"), lambda: compiled.search("a," * 8 + "!")) > 4
        return
    assert is_slow(lambda text: compiled.search(f'rel="{text}'), "next ", "") or is_slow(compiled.search, "0", "")
