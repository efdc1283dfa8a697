"""Reads the settings: environment variables, and the settings file. Nothing else in the service reads either."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from entrypoints.setting_values import shown
from entrypoints.settings import Settings
from entrypoints.settings_file import SettingsError, read_settings_file

_IN_FILE = frozenset(Settings.model_fields) - {"config"}
_IN_FILE_ALONE = frozenset({"upstreams", "rules"})
# Settings of the environment's one upstream; those of several stand in the settings file.
_OF_THE_ONLY_UPSTREAM = frozenset(name for name in _IN_FILE if name.startswith("upstream_")) | {"search_upstream"}


def load_settings(config: Path | None = None) -> Settings:
    """The settings of this process's environment, and of the settings file, whose path CONFIG names where `config`
    does not. What the environment says goes before what the file says. Raises SettingsError.

    An empty variable is an unset one, as in many an environment file; but for accounts, where it is rather the
    output of a command that failed, and to open the house in silence would be the worst answer to that.
    """
    for name, value in os.environ.items():
        if name.upper() in {"ACCOUNTS", "ACCOUNTS_FILE", "HTPASSWD_FILE"} and not value:
            takes = Settings.model_fields[name.lower()].description
            raise SettingsError(f"{name.upper()}: is set but empty; takes {takes}")
    said = {name.lower(): value for name, value in os.environ.items() if value}
    if lost := sorted(said.keys() & _IN_FILE_ALONE):
        raise SettingsError(f"{lost[0].upper()}: is for the settings file alone; takes no variable of the environment")
    path = config or (Path(said["config"]) if "config" in said else None)
    given = read_settings_file(path, _IN_FILE) if path else {}
    if given.get("upstreams") and (twice := sorted(said.keys() & _OF_THE_ONLY_UPSTREAM)):
        raise SettingsError(
            f"{twice[0].upper()}: is for a single upstream, and {path} has upstreams; takes one or the other"
        )
    # One and the same setting, whether it has its value or the file that holds it.
    twins = {f"{name}_file" for name in said} | {name.removesuffix("_file") for name in said}
    given = {name: value for name, value in given.items() if name not in said.keys() | twins}
    try:
        return Settings(**{"upstreams": (), "rules": (), **given, "config": path})
    except ValidationError as error:
        raise SettingsError(_line(error, path, given)) from None
    except RuntimeError as error:
        # What the default of this one raises where nobody knows the user's home.
        takes = Settings.model_fields["cache_dir"].description
        raise SettingsError(f"CACHE_DIR: is not set, and there is no home to put it in; takes {takes}") from error


def _line(error: ValidationError, path: Path | None, given: Mapping[str, object]) -> str:
    """One line: the setting, what it got (never a secret), what it takes; and the file, where it stands in one."""
    first = error.errors(include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{path}: {reason}" if given else reason
    name = str(first["loc"][0])
    if name in given:
        return f"{path}: {name}: {_what_is_wrong(name, first, reason)}"
    return f"{name.upper()}: {_what_is_wrong(name, first, reason)}"


def _what_is_wrong(name: str, first: Mapping[str, Any], reason: str) -> str:
    takes = reason if first["type"] == "value_error" else f"takes {Settings.model_fields[name].description}"
    return f"{shown(name, first['input'])}{takes}"
