"""No regular expression takes more than linear time, whatever text it is applied to."""

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # how the interpreter reads a pattern; re shows no other way
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("domain", "application", "adapters", "entrypoints")
METHODS = {"match", "fullmatch", "search", "finditer", "findall", "sub", "split"}
LENGTH = 4000
NOTICEABLE = 0.004
"""Seconds of CPU time. A linear pattern takes a tenth of it for LENGTH repetitions; a quadratic one a hundred times as
much."""
RATIO = 3.0
"""When the text doubles, linear time doubles; quadratic time grows fourfold."""
ENDINGS = ("", "\x00", '"', ",", "=", "x", "<>")


@dataclass(frozen=True)
class Use:
    """A pattern and the methods that are called with it."""

    place: str
    pattern: re.Pattern[Any]
    methods: frozenset[str]


def uses() -> Iterator[Use]:  # noqa: C901 - one walk over the sources, read from top to bottom
    trees = {path: ast.parse(path.read_text()) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))}
    called: dict[str, set[str]] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in METHODS:
                called.setdefault(node.value.id, set()).add(node.attr)
    for path, tree in trees.items():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for attribute, value in vars(importlib.import_module(name)).items():
            if isinstance(value, re.Pattern) and f"{attribute} = re.compile" in path.read_text():
                # A pattern that is handed on is not called by its own name.
                yield Use(f"{name}.{attribute}", value, frozenset(called.get(attribute, {"fullmatch"})))
        for node in ast.walk(tree):
            if inline := _inline(node):
                yield Use(f"{name}, line {node.lineno}", *inline)  # type: ignore[attr-defined]


def _inline(node: ast.AST) -> tuple[re.Pattern[str], frozenset[str]] | None:
    """`re.sub("...", ...)`; what is filled into a pattern is a number."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
        return None
    if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
        return None
    pattern = node.args[0]
    parts = pattern.values if isinstance(pattern, ast.JoinedStr) else [pattern]
    texts = [str(part.value) if isinstance(part, ast.Constant) else "64" for part in parts]
    flags = re.DOTALL if any(one.arg == "flags" for one in node.keywords) else 0
    return re.compile("".join(texts), flags), frozenset({node.func.attr})


def samples(tree: Any) -> list[str]:
    """Some texts that a part of a pattern matches; two at most for each choice in it."""
    found = [""]
    for kind, argument in tree:
        found = [before + after for before in found for after in dict.fromkeys(_some(str(kind), argument))][:6]
    return found


def _some(kind: str, argument: Any) -> list[str]:  # noqa: PLR0911 - one row for each kind of part
    match kind:
        case "LITERAL":
            return [chr(argument)]
        case "NOT_LITERAL" | "ANY":
            return ["a", " "]
        case "IN":
            return [one for one in ("a", " ", "0", ",", "/", "\\", "-") if _is_in(argument, one)][:3] or _first(
                argument
            )
        case "BRANCH":
            return [text for branch in argument[1] for text in samples(branch)[:1]]
        case "SUBPATTERN":
            return samples(argument[3])[:3]
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, _, body = argument
            return [text * max(1, int(least)) for text in samples(body)[:2]] + ([""] if int(least) == 0 else [])
        case _:
            return [""]


def _first(items: Any) -> list[str]:
    return [
        chr(argument[0] if str(kind) == "RANGE" else argument)
        for kind, argument in items
        if isinstance(argument, int | tuple)
    ][:1]


def _is_in(items: Any, text: str) -> bool:
    negated = str(items[0][0]) == "NEGATE"
    found = False
    for kind, argument in items:
        match str(kind):
            case "LITERAL":
                found = found or chr(argument) == text
            case "RANGE":
                found = found or argument[0] <= ord(text) <= argument[1]
            case "CATEGORY":
                found = found or ("SPACE" in str(argument)) == text.isspace()
    return found != negated


def pumps(tree: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """For each unbounded repetition: a text that leads to it, and what it repeats; also all of it, again and again."""
    for index, (kind, argument) in enumerate(tree):
        lead = before + samples(tree[:index])[0]
        if "REPEAT" in str(kind):
            _, most, body = argument
            if str(most) == "MAXREPEAT":
                for text in samples(body):
                    yield lead, text
                    yield "", lead + text
                    yield lead, text + "a "
                    yield lead, f"{text}{text} "
                    yield from ((lead, lead[-count:] + text) for count in (1, 2, 5, 6))
            yield from pumps(body, lead)
        elif str(kind) == "SUBPATTERN":
            yield from pumps(argument[3], lead)
        elif str(kind) == "BRANCH":
            for branch in argument[1]:
                yield from pumps(branch, lead)


def cpu_time(action: Callable[[], object], *, tries: int) -> float:
    best = float("inf")
    for _ in range(tries):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def applied(use: Use, method: str, text: str) -> Callable[[], object]:
    subject: Any = text if isinstance(use.pattern.pattern, str) else text.encode("utf-8", "surrogateescape")
    if method == "sub":
        return lambda: use.pattern.sub(lambda _: subject[:0], subject)
    if method == "finditer":
        return lambda: list(use.pattern.finditer(subject))
    return lambda: getattr(use.pattern, method)(subject)


def growth(use: Use, length: int = LENGTH) -> Iterator[tuple[str, float]]:
    """The texts for which the time is noticeable at all, and by how much it grows when they are twice as long."""
    tree = _parser.parse(
        use.pattern.pattern,
        use.pattern.flags & ~re.UNICODE if isinstance(use.pattern.pattern, bytes) else use.pattern.flags,
    )
    for lead, pump in dict.fromkeys(pumps(tree)):
        for ending in ENDINGS:
            for method in use.methods:
                short, long = (lead + pump * count + ending for count in (length, 2 * length))
                if cpu_time(applied(use, method, short), tries=2) < NOTICEABLE:
                    continue
                once = cpu_time(applied(use, method, short), tries=3)
                yield (
                    f"{method} {lead!r} + {pump!r} * n + {ending!r}",
                    cpu_time(applied(use, method, long), tries=3) / once,
                )


USES = list(uses())


@pytest.mark.parametrize("use", USES, ids=[use.place for use in USES])
def test_each_pattern_takes_linear_time(use: Use) -> None:
    assert [(text, ratio) for text, ratio in growth(use) if ratio > RATIO] == []


def test_a_quadratic_pattern_is_found_out() -> None:
    """The one with which 12,500 words in a Link header took 8 s, and two others."""
    link = re.compile(r";\s*rel\s*=\s*(?:\"(?:[^\"]*\s)?next(?:\s[^\"]*)?\"|next(?=[\s;,]|$))", re.IGNORECASE)
    quadratic = ((link, "search"), (re.compile(r"\s*,\s*,"), "search"), (re.compile("a*a*b"), "fullmatch"))
    for pattern, method in quadratic:
        assert any(ratio > RATIO for _, ratio in growth(Use("", pattern, frozenset({method})), 1500)), pattern
