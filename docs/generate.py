"""Writes the generated parts of docs/reference from the program. `scripts/docs --write` runs it.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test compares each part with what
this file would write.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from entrypoints.cli import command_parser
from entrypoints.version import NAME

REFERENCE = Path(__file__).parent / "reference"


def commands() -> str:
    """One section for each command: what it does, and its arguments."""
    return "\n".join(_sections(NAME, command_parser())).strip()


def _sections(words: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in _groups(parser):
        helps = {choice.dest: choice.help for choice in group._choices_actions}  # noqa: SLF001 - there is no public way
        for name, command in group.choices.items():
            if _groups(command):
                yield from _sections(f"{words} {name}", command)
                continue
            arguments = [one for one in command._actions if one.help not in {None, argparse.SUPPRESS}]  # noqa: SLF001
            named = [_form(one) for one in command._actions if not one.option_strings]  # noqa: SLF001
            yield f"### `{' '.join([words, name, *named])}`\n\n{_sentence(str(helps[name]))}\n"
            listed = [one for one in arguments if "--help" not in one.option_strings]
            yield from (f"- `{_form(one)}`: {_sentence(str(one.help))}" for one in listed)
            if listed:
                yield ""


def _groups(parser: argparse.ArgumentParser) -> "list[argparse._SubParsersAction[argparse.ArgumentParser]]":
    return [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]  # noqa: SLF001


def _form(argument: argparse.Action) -> str:
    """As one types it: `IMAGE...`, `[IMAGE]`, `--older-than DAYS`."""
    value = str(argument.metavar or argument.dest.upper())
    if argument.option_strings:
        return f"{argument.option_strings[-1]} {value}"
    return {"+": f"{value}...", "?": f"[{value}]"}.get(str(argument.nargs), value)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def metrics() -> str:
    """One row for each metric, read from the page that Prometheus reads."""
    page = CountingEventSink(SharedCounters(1, ["https://registry.example.com"]), 0).render()[0].decode()
    rows = []
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", page, re.MULTILINE):
        kind = re.search(rf"^# TYPE {name} (\w+)$", page, re.MULTILINE)
        labels = re.search(rf"^{name}{{(\w+)=", page, re.MULTILINE)
        label = f" `{labels[1]}`" if labels else ""
        rows.append(f"| `{name}` | {kind[1] if kind else ''}{label} | {meaning} |")
    return "\n".join(["| Metric | Type, label | Meaning |", "|---|---|---|", *rows])


PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "commands": ("commands.md", commands),
    "metrics": ("metrics.md", metrics),
}
"""The page on which each part stands, and what writes it."""


def written(name: str) -> str:
    """The whole page of this part, with the part as it should be."""
    page, write = PARTS[name]
    text = (REFERENCE / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- generated: {name} -->\n.*?<!-- end -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{page} has no generated part {name!r}")
    return f"{text[: found.start()]}<!-- generated: {name} -->\n{write()}\n<!-- end -->{text[found.end() :]}"


def main() -> None:
    for name, (page, _) in PARTS.items():
        (REFERENCE / page).write_text(written(name), encoding="utf-8")


if __name__ == "__main__":
    main()
