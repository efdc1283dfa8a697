"""Writes the generated parts of the documents from the code. `scripts/docs --write` runs it.

A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`. A test checks that each part is up to date.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from benchmarks import replicas
from domain.events import BodiesReceived, QueueLeft, RequestAnswered, UpstreamAnswered
from domain.known_registries import KNOWN_REGISTRIES, KnownRegistry
from entrypoints.cli import command_parser
from entrypoints.settings.definitions import (
    FreshnessKeys,
    RuleKeys,
    ServiceAndUpstreamSettings,
    UpstreamDefinitions,
)
from entrypoints.settings.schema import Definition, definitions_of
from entrypoints.settings.sources import ONLY_IN_FILE
from entrypoints.settings.templates import GROUPS, environment_file
from entrypoints.version import NAME, VERSION

ROOT = Path(__file__).parents[1]
_CHART = ROOT / "deploy" / "helm" / "docker-image-proxy"
_COLUMNS = ("Takes", "Default", "Meaning")


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
    """The argument as a user types it: `IMAGE...`, `[IMAGE]`, `--older-than DAYS`, `--shared`."""
    value = str(argument.metavar or argument.dest.upper())
    if argument.option_strings and argument.nargs == 0:
        return argument.option_strings[-1]
    if argument.option_strings:
        return argument.option_strings[-1] if argument.nargs == 0 else f"{argument.option_strings[-1]} {value}"
    return {"+": f"{value}...", "?": f"[{value}]"}.get(str(argument.nargs), value)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def metrics() -> str:
    """One row for each metric, parsed from the output of `/metrics`."""
    url = "https://registry.example.com"
    sink = CountingEventSink(SharedCounters(1, {url: [url, "https://second.example.com"]}, VERSION), 0)
    # A histogram shows its labels only after its first event.
    for event in _OBSERVED:
        sink.emit(event)
    page = b"".join(sink.parts()).decode()
    rows = []
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", page, re.MULTILINE):
        kind = re.search(rf"^# TYPE {name} (\w+)$", page, re.MULTILINE)
        labels = re.search(rf"^{name}(?:_count)?{{(.*)}} ", page, re.MULTILINE)
        label = "".join(f" `{one}`" for one in re.findall(r'(\w+)="', labels[1])) if labels else ""
        rows.append(f"| `{name}` | {kind[1] if kind else ''}{label} | {meaning} |")
    return "\n".join(["| Metric | Type, label | Meaning |", "|---|---|---|", *rows])


_OBSERVED = (
    RequestAnswered("blob", "hit", "", 1.0, 1, 1.0),
    UpstreamAnswered("", "blob", "ok", 1.0),
    QueueLeft("", 1.0),
    BodiesReceived("", 2**20, 1.0),
)


def settings() -> str:
    """A table for each group of settings, and for the keys of each kind of table in the settings file."""
    kinds = {"Keys of an access rule": RuleKeys, "Keys of a freshness rule": FreshnessKeys}
    overridable, known = definitions_of(ServiceAndUpstreamSettings), KNOWN_REGISTRIES.values()
    upstreams = [
        f"| {_names(one.variable, one)} | {_names(name, one)} | {_meaning(UpstreamDefinitions, name, one)}"
        for name, one in definitions_of(UpstreamDefinitions).items()
        if name not in overridable
    ]
    upstreams += [
        f"| | `{name}` | {one.parser.takes} | `{name.upper()}` | As `{name.upper()}`, for this upstream. |"
        for name, one in overridable.items()
    ]
    return "\n\n".join(
        [
            *(_table(title, ["Name", *_COLUMNS], _rows(kind, str.upper)) for title, kind in GROUPS.items()),
            _table("Upstreams", ["Variable", "Key of an upstream", *_COLUMNS], upstreams),
            *(_table(title, ["Key", *_COLUMNS], _rows(kind, str)) for title, kind in kinds.items()),
            _table("Well-known registries", ["Name", "Address", "What else the name brings"], map(_known, known)),
        ]
    )


def _table(title: str, columns: list[str], rows: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *rows])


def _rows(kind: type, called: Callable[[str], str]) -> Iterator[str]:
    for name, one in definitions_of(kind).items():
        yield f"| {_names(name if name in ONLY_IN_FILE else called(name), one)} | {_meaning(kind, name, one)}"


def _names(name: str, one: Definition) -> str:
    """The name, and for a secret also the name of the setting for a file that contains the value."""
    if not name:
        return ""
    return f"`{name}`, `{name}{'_FILE' if name.isupper() else '_file'}`" if one.is_secret else f"`{name}`"


def _meaning(kind: type, name: str, one: Definition) -> str:
    [default] = [each.default for each in fields(kind) if each.name == name]
    return f"{one.parser.takes} | {one.default_text or _shown(default)} | {one.description} |"


def _known(one: KnownRegistry) -> str:
    brought = {"`search`": one.search, "`realms`": one.realms, "`library`": one.has_library}
    return (
        f"| `{one.name}` | `{one.url}` | {', '.join(name for name, value in brought.items() if value) or 'nothing'} |"
    )


def _shown(default: object) -> str:
    if default in (None, "", (), frozenset()):
        return "none"
    if isinstance(default, float):
        return f"`{default:g}`"
    value = default.value if isinstance(default, Enum) else default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def values() -> str:
    """One row for each value of the Helm chart, from its defaults and its schema."""
    defaults = yaml.safe_load((_CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((_CHART / "values.schema.json").read_text(encoding="utf-8"))
    rows = ["| Value | Default | Meaning |", "|---|---|---|"]
    for name, one, default in _values("", schema, defaults):
        shown = "none" if default in ("", None, {}, []) else f"`{json.dumps(default)}`"
        rows.append(f"| `{name}` | {shown} | {one['description']} |")
    return "\n".join(rows)


def _values(prefix: str, schema: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name, default in defaults.items():
        one = schema["properties"][name]
        if "properties" in one:
            yield from _values(f"{prefix}{name}.", one, default)
        else:
            yield f"{prefix}{name}", one, default


_SEVERAL_MACHINES = "docs/guides/several-machines.md"

PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "commands": ("docs/reference/commands.md", commands),
    "metrics": ("docs/reference/metrics.md", metrics),
    "settings": ("docs/reference/settings.md", settings),
    "values": ("deploy/helm/docker-image-proxy/README.md", values),
    "replicas": (_SEVERAL_MACHINES, lambda: replicas.replicas_text(replicas.Parameters())),
    "costs": (_SEVERAL_MACHINES, lambda: replicas.costs_text(replicas.Parameters(), replicas.Prices())),
    "parameters": (
        _SEVERAL_MACHINES,
        lambda: replicas.parameters_text(replicas.Parameters(), replicas.Prices()),
    ),
}
"""For each part: the document that contains it, and the function that returns its text."""


def written(name: str) -> str:
    """The text of the page that contains this part, with the part written again."""
    page, write = PARTS[name]
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- generated: {name} -->\n.*?<!-- end -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{page} has no generated part {name!r}")
    return f"{text[: found.start()]}<!-- generated: {name} -->\n{write()}\n<!-- end -->{text[found.end() :]}"


ENVIRONMENT_FILE = ".env.example"
"""A file that is generated as a whole."""


def main() -> None:
    (ROOT / ENVIRONMENT_FILE).write_text(environment_file(), encoding="utf-8")
    for name, (page, _) in PARTS.items():
        (ROOT / page).write_text(written(name), encoding="utf-8")


if __name__ == "__main__":
    main()
