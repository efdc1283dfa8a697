"""Where settings come from: the environment, the settings file, and files that hold one secret each."""

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from domain.known_registries import KNOWN_REGISTRIES
from domain.trust import UpstreamIdentity
from entrypoints.settings.definitions import ServiceAndUpstreamSettings
from entrypoints.settings.model import VARIABLES, Settings, SettingsError, UpstreamSettings
from entrypoints.settings.schema import Parser, check_keys, definitions_of, keys_of, read, read_text, shown
from entrypoints.settings.values import ACCOUNTS, FILE, HOST, OPERATORS

_OF_ONLY_UPSTREAM = {
    name: VARIABLES[base].lower() + name.removeprefix(base)
    for name in keys_of(UpstreamSettings)
    if (base := name.removesuffix("_file")) in VARIABLES
}
"""The names of the settings of the only upstream, in the environment and at the top of the settings file."""
ONLY_IN_FILE = frozenset({"rules", "upstreams"})
KNOWN_NAMES = keys_of(Settings) | set(_OF_ONLY_UPSTREAM.values()) | {"upstreams", "default_upstream"}


def load_settings(config: Path | None = None) -> Settings:
    """The settings of the environment and of the settings file, whose path is `config` or else CONFIG. The environment
    takes precedence over the file. Raises SettingsError.

    An empty variable counts as unset, as in many environment files. An empty variable for accounts is an error: it is
    probably the output of a command that failed, and without accounts everyone could use the mirror.
    """
    try:
        return _load(config)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _load(config: Path | None) -> Settings:
    variables = {name.lower(): text for name, text in os.environ.items() if name.lower() in KNOWN_NAMES}
    takes_of: dict[str, Parser[Any]] = {
        "accounts": ACCOUNTS,
        "accounts_file": FILE,
        "htpasswd_file": FILE,
        "metrics_accounts": ACCOUNTS,
        "metrics_accounts_file": FILE,
        "admin_accounts": OPERATORS,
        "admin_accounts_file": FILE,
    }
    for name, parser in takes_of.items():
        if variables.get(name) == "":
            takes = parser.takes
            raise ValueError(f"{name.upper()}: is set but empty; takes {takes}")
    variables = {name: text for name, text in variables.items() if text}
    if misplaced := sorted(variables.keys() & ONLY_IN_FILE):
        name = misplaced[0].upper()
        raise ValueError(f"{name}: can only be set in the settings file, not by an environment variable")
    path = config or (Path(variables["config"]) if "config" in variables else None)
    in_file = _read_file(path) if path else {}
    of_only = set(_OF_ONLY_UPSTREAM.values())
    conflicts = sorted(of_only & variables.keys()) or sorted(of_only & in_file.keys())
    if conflicts and in_file.get("upstreams"):
        name = conflicts[0].upper() if conflicts[0] in variables else f"{path}: {conflicts[0]}"
        raise ValueError(f"{name}: is for a single upstream, and {path} has upstreams; takes one or the other")
    # NAME and NAME_FILE are the same setting.
    same_settings = {f"{name}_file" for name in variables} | {name.removesuffix("_file") for name in variables}
    in_file = {name: value for name, value in in_file.items() if name not in variables.keys() | same_settings}
    return build_settings({**in_file, **variables, "config": path}, path, in_file)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path)
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"CONFIG: got {str(path)!r}: {error}") from error
    if not text.strip():
        # As with accounts, this is probably the output of a command that failed.
        raise ValueError(f"CONFIG: got {str(path)!r}, which is empty; takes the path of a TOML file")
    check_keys(document, KNOWN_NAMES - {"config"}, f"{path}: ")
    return document


def build_settings(given: Mapping[str, Any], path: Path | None = None, in_file: Collection[str] = ()) -> Settings:
    """The settings of the given values. `in_file` are the names of those that are in the settings file at `path`.

    Raises ValueError, which names the setting, and also the file if the setting is in the file.
    """
    prefix = f"{path}: " if in_file else ""
    labels = {name: f"{prefix}{name}" if name in in_file else name.upper() for name in KNOWN_NAMES}
    service = read(Settings, given, labels)
    defaults = {name: getattr(service, name) for name in definitions_of(ServiceAndUpstreamSettings)}
    upstreams = _upstreams_in_file(prefix, given.get("upstreams", []), defaults)
    default = given.get("default_upstream")
    if upstreams:
        settings = replace(service, upstreams=_with_default_first(prefix, upstreams, default))
    elif default is not None:
        raise ValueError(f"{prefix}default_upstream: there are no upstreams to choose from")
    else:
        single = {name: given[variable] for name, variable in _OF_ONLY_UPSTREAM.items() if variable in given}
        single_labels = {name: labels[variable] for name, variable in _OF_ONLY_UPSTREAM.items()}
        only = _upstream(single, single_labels, defaults, is_alone=True)
        settings = replace(service, upstreams=(only,))
    try:
        settings.check()
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error
    return settings


def _upstreams_in_file(prefix: str, entries: object, defaults: Mapping[str, Any]) -> tuple[UpstreamSettings, ...]:
    if not isinstance(entries, list):
        raise ValueError(f"{prefix}upstreams: takes a list of names and tables")
    found: list[UpstreamSettings] = []
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, str | dict):
            raise ValueError(f"{prefix}upstreams: entry {position}: takes a registry's name or a table")
        table = {"name": entry} if isinstance(entry, str) else entry
        check_keys(table, keys_of(UpstreamSettings), f"{prefix}upstreams: entry {position}: ")
        name = str(table.get("name", "")).strip().lower()
        place = f"upstream {name if HOST.fullmatch(name) else position}: "
        values = {**_known_values(name, table), **table}
        labels = {key: f"{prefix}{place}{key}" for key in keys_of(UpstreamSettings)}
        one = _upstream(values, labels, defaults, is_alone=len(entries) == 1)
        if "url" not in values:
            raise ValueError(f"{prefix}{place}url: is missing; only a name with a dot, such as quay.io, needs none")
        if (one.name or one.url) in [other.name or other.url for other in found]:
            raise ValueError(f"{prefix}{place}is defined twice")
        found.append(replace(one, place=place))
    return tuple(found)


def _known_values(name: str, table: Mapping[str, object]) -> dict[str, object]:
    """The values that follow from the name of a registry. A mirror of a well-known registry at another address has its
    images, but neither its search nor its token server.
    """
    known = KNOWN_REGISTRIES.get(name)
    if known is None:
        return {"url": f"https://{name}"} if "." in name or ":" in name else {}
    values = {"url": known.url, "search": known.search, "realms": list(known.realms), "library": known.has_library}
    return {key: value for key, value in values.items() if value and ("url" not in table or key == "library")}


def _upstream(
    given: Mapping[str, Any], labels: Mapping[str, str], defaults: Mapping[str, Any], *, is_alone: bool
) -> UpstreamSettings:
    """`defaults` are the service's values of settings that an upstream can set for itself."""
    values = dict(given)
    if "identity" not in values:
        # Clients keep one login for a host name, so it belongs to one upstream at most; the operator says to which.
        alone = UpstreamIdentity.CLIENT if is_alone else UpstreamIdentity.ANONYMOUS
        values["identity"] = (UpstreamIdentity.SERVICE if "username" in values else alone).value
    one = read(UpstreamSettings, values, labels)
    return replace(one, **{name: value for name, value in defaults.items() if name not in values})


def _with_default_first(
    prefix: str, upstreams: tuple[UpstreamSettings, ...], default: object
) -> tuple[UpstreamSettings, ...]:
    """The upstreams, of which the first is the default: it serves requests that name no upstream."""
    if default is None:
        return upstreams
    names = {one.name or one.url: one for one in upstreams}
    chosen = names.get(str(default)) or names.get(str(default).strip().lower())
    if chosen is None:
        got = shown("default_upstream", default)
        raise ValueError(f"{prefix}default_upstream: {got}takes one of {', '.join(names)}")
    return (chosen, *(one for one in upstreams if one is not chosen))
