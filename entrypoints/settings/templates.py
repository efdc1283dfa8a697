"""A settings file and an environment file that name and explain every setting, written from the definitions."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from textwrap import wrap

from entrypoints.settings.definitions import (
    AccountAndTokenSettings,
    CacheSettings,
    ProxySettings,
    ServerSettings,
    SharedTierSettings,
    TraceSettings,
    UpstreamDefinitions,
)
from entrypoints.settings.schema import Definition, definitions_of

GROUPS: Mapping[str, type] = {
    "Server": ServerSettings,
    "Accounts and tokens": AccountAndTokenSettings,
    "Cache": CacheSettings,
    "Several replicas": SharedTierSettings,
    "Traces": TraceSettings,
    "Outbound proxies": ProxySettings,
}
"""The settings of the service by the titles of their groups. Those of upstreams have their own form."""

_WIDTH = 100
_FILE_HEADER = """\
# The settings of docker-image-proxy. A line that begins with "#" and a name shows a default: remove the "#" to change
# it. A variable of the environment has the same name in capitals, and takes precedence over this file.
# "docker-image-proxy --config FILE check-config" checks this file and asks the registries.
"""
_VARIABLES_HEADER = """\
# The settings of docker-image-proxy as variables, for "docker run --env-file", Compose and systemd (EnvironmentFile=).
# Each line shows a default: remove the "#" to change it. An empty variable counts as unset, except for accounts.
# "scripts/docs --write" writes this file from the definitions of the settings.
"""
_UPSTREAMS = """\
The registries that are mirrored. Requests that name no registry go to the first one. An upstream can also have these \
keys, with the same meaning as the variables in the reference of the settings:"""


def settings_file(values: Mapping[str, object], upstreams: Sequence[Mapping[str, object]]) -> str:
    """TOML with these values by the names of their settings, and with the other settings as comments."""
    lines = [_FILE_HEADER]
    for title, kind in GROUPS.items():
        lines += _title(title)
        for name, one in definitions_of(kind).items():
            if name != "config":
                lines += _comment(one)
                given = name in values
                lines += [f"{'' if given else '#'}{name} = {toml(values[name] if given else _default(kind, name))}", ""]
    keys = [f"{name}, {name}_file" if one.is_secret else name for name, one in _of_one_upstream().items()]
    lines += [*_title("Upstreams"), *_wrapped(f"{_UPSTREAMS} {', '.join(keys)}."), ""]
    for upstream in upstreams:
        lines += ["[[upstreams]]", *(f"{key} = {toml(value)}" for key, value in upstream.items()), ""]
    return "\n".join(lines)


def environment_file() -> str:
    """NAME=value lines, each a comment, for every setting that a variable can have."""
    lines = [_VARIABLES_HEADER]
    for title, kind in GROUPS.items():
        lines += _title(title)
        for name, one in definitions_of(kind).items():
            if name != "rules":
                lines += [*_comment(one), f"#{name.upper()}={_plain(_default(kind, name))}", ""]
    lines += _title("The upstream, if it is the only one; several need a settings file")
    for name, one in definitions_of(UpstreamDefinitions).items():
        if one.variable:  # others are settings of the service, or need a settings file
            lines += [*_comment(one), f"#{one.variable}={_plain(_default(UpstreamDefinitions, name))}", ""]
    return "\n".join(lines)


def toml(value: object) -> str:
    """A value as TOML: a text, a number, a boolean, or a list of texts."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    # JSON's strings and booleans are those of TOML, which allows no unescaped DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain_text(markdown: str) -> str:
    """The description of a setting without the targets of its links."""
    return re.sub(r"\[([^][]+)\]\([^()]+\)", r"\1", markdown)


def default_text(name: str) -> str:
    """The default of a setting of the service as an operator types it; "" if there is none."""
    [kind] = [kind for kind in GROUPS.values() if name in definitions_of(kind)]
    return _plain(_default(kind, name))


def _of_one_upstream() -> dict[str, Definition]:
    return {name: one for name, one in definitions_of(UpstreamDefinitions).items() if name != "name"}


def _title(text: str) -> list[str]:
    return [f"# --- {text} ---", ""]


def _comment(one: Definition) -> Iterator[str]:
    second = " The name with _FILE (_file) names a file that contains the value." if one.is_secret else ""
    yield from _wrapped(f"{_plain_text(one.description)} Takes {one.parser.takes}.{second}")


def _wrapped(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _default(kind: type, name: str) -> object:
    """The default as a value that the setting takes; "" or () if there is none."""
    one = definitions_of(kind)[name]
    if literal := re.fullmatch(r"`([^`]+)`", one.default_text):
        return literal[1]
    [default] = [each.default for each in fields(kind) if each.name == name]
    if isinstance(default, Enum):
        return default.value
    if default is None or default is MISSING:
        return ""
    return sorted(default) if isinstance(default, frozenset) else default


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return toml(value).strip('"')
