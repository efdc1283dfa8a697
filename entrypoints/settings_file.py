"""The settings file: TOML beside the environment, and the only place where several upstreams can be named."""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from domain.trust import UpstreamIdentity
from domain.well_known_registries import PRESETS
from entrypoints.rule_settings import RuleSettings
from entrypoints.setting_files import read_secret_file, read_text
from entrypoints.setting_values import HOST, shown
from entrypoints.upstream_settings import UpstreamSettings

_KEYS_OF_UPSTREAM = frozenset(UpstreamSettings.model_fields) - {"title"} | {"name", "password_file"}


class SettingsError(Exception):
    """A setting that stops the start; the message is the one line to print."""


def read_settings_file(path: Path, known: frozenset[str]) -> dict[str, Any]:
    """The settings that stand in it, by their names, as the environment would have them; `upstreams` parsed.

    `known` are the names that it may hold. Raises SettingsError, which names the file and the key.
    """
    try:
        text = read_text(path)
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"CONFIG: got {str(path)!r}: {error}") from error
    if not text.strip():
        # Rather the output of a command that failed, as with accounts: nobody asks for nothing.
        raise SettingsError(f"CONFIG: got {str(path)!r}, which is empty; takes the path of a TOML file")
    default = document.pop("default_upstream", None)
    _check_keys(f"{path}: ", document, known)
    entries = document.pop("upstreams", [])
    rules = document.pop("rules", [])
    given: dict[str, Any] = {name: _as_text(f"{path}: {name}: ", value) for name, value in document.items()}
    given["rules"] = _rules(path, rules)
    if upstreams := _upstreams(path, entries):
        given["upstreams"] = _default_first(path, upstreams, default)
    elif default is not None:
        raise SettingsError(f"{path}: default_upstream: there are no upstreams to choose from")
    return given


def _check_keys(where: str, table: Mapping[str, object], known: frozenset[str]) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise SettingsError(f"{where}{key}: is no setting" + (f"; is {near[0]} meant?" if near else ""))


def _as_text(where: str, value: object) -> str:
    """So that what a setting takes is said once, for both."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if isinstance(value, str | int | float):
        return str(value)
    raise SettingsError(f"{where}takes a text, a number, true or false, or a list of texts")


def _rules(path: Path, entries: object) -> tuple[RuleSettings, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(f"{path}: rules: takes tables, each under [[rules]]")
    found = []
    for position, entry in enumerate(entries, start=1):
        where = f"{path}: rules: entry {position}: "
        _check_keys(where, entry, frozenset(RuleSettings.model_fields))
        try:
            found.append(RuleSettings(**entry))
        except ValidationError as error:
            raise SettingsError(f"{where}{_wrong(error, RuleSettings)}") from None
    return tuple(found)


def _upstreams(path: Path, entries: object) -> dict[str, UpstreamSettings]:
    """By name."""
    if not isinstance(entries, list):
        raise SettingsError(f"{path}: upstreams: takes a list of names and tables")
    found: dict[str, UpstreamSettings] = {}
    for position, entry in enumerate(entries, start=1):
        where = f"{path}: upstreams: entry {position}"
        if not isinstance(entry, str | dict):
            raise SettingsError(f"{where}: takes a registry's name or a table")
        table = {"name": entry} if isinstance(entry, str) else dict(entry)
        _check_keys(f"{where}: ", table, _KEYS_OF_UPSTREAM)
        name = str(table.pop("name", "")).strip().lower()
        where = f"{path}: upstream {name if HOST.fullmatch(name) else position}"
        one = _upstream(where, name, table, is_alone=len(entries) == 1)
        if (name or one.url) in found:
            raise SettingsError(f"{where}: is there twice")
        found[name or one.url] = one
    return found


def _upstream(where: str, name: str, table: dict[str, Any], *, is_alone: bool) -> UpstreamSettings:
    if name and not HOST.fullmatch(name):
        raise SettingsError(f"{where}: name: {shown('name', name)}takes a name such as registry.example.com or hub")
    values: dict[str, Any] = {**_preset(name, is_elsewhere="url" in table), **table}
    if "url" not in values:
        if "." not in name and ":" not in name:
            raise SettingsError(f"{where}: url: is missing; only the well-known registries go without one")
        values["url"] = f"https://{name}"
    if name:
        values["title"] = name
    if path := values.pop("password_file", None):
        values["password"] = _password(where, values, Path(str(path)))
    if "identity" not in values:
        values["identity"] = _identity(values, is_alone=is_alone)
    try:
        return UpstreamSettings(**values)
    except ValidationError as error:
        raise SettingsError(f"{where}: {_wrong(error, UpstreamSettings)}") from None


def _preset(name: str, *, is_elsewhere: bool) -> Mapping[str, object]:
    """A mirror of the registry at another address has its images, but neither its search nor its token server."""
    known = PRESETS.get(name, {})
    return {key: value for key, value in known.items() if key == "library"} if is_elsewhere else known


def _password(where: str, values: Mapping[str, Any], path: Path) -> str:
    if "password" in values:
        raise SettingsError(f"{where}: password and password_file are both set; takes one of them")
    try:
        return read_secret_file(path)
    except ValueError as error:
        raise SettingsError(f"{where}: password_file: {shown('password_file', path)}{error}") from error


def _identity(values: Mapping[str, Any], *, is_alone: bool) -> UpstreamIdentity:
    """Under one host name, clients keep one login: only one upstream at most can be meant by it, and which one is the
    operator's to say.
    """
    if "username" in values:
        return UpstreamIdentity.SERVICE
    return UpstreamIdentity.CLIENT if is_alone else UpstreamIdentity.ANONYMOUS


def _wrong(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return reason
    key = str(first["loc"][0])
    if len(first["loc"]) > 1:
        return f"{'.'.join(map(str, first['loc']))}: {reason}"
    takes = reason if first["type"] == "value_error" else f"takes {model.model_fields[key].description}"
    return f"{key}: {shown(key, first['input'])}{takes}"


def _default_first(
    path: Path, upstreams: Mapping[str, UpstreamSettings], default: object
) -> tuple[UpstreamSettings, ...]:
    """Where nothing says which one is meant, it is the first."""
    if default is None:
        return tuple(upstreams.values())
    chosen = next(
        (one for name, one in upstreams.items() if name in (str(default), str(default).strip().lower())), None
    )
    if chosen is None:
        given = shown("default_upstream", default)
        raise SettingsError(f"{path}: default_upstream: {given}takes one of {', '.join(upstreams)}")
    return (chosen, *(one for one in upstreams.values() if one is not chosen))
