"""The settings file and the environment file that explain every setting."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from domain.access import Credentials
from entrypoints.settings import Settings
from entrypoints.settings.sources import KNOWN_NAMES, ONLY_IN_FILE
from entrypoints.settings.templates import environment_file, settings_file, toml
from entrypoints.settings.values import Secret
from tests.entrypoints.environment import Load, Read

OWN_UPSTREAM = [{"name": "quay.io", "identity": "anonymous"}]
EMPTY = re.compile(r'^#\w+ ?= ?(""|\[\])?$', re.MULTILINE)


def uncommented(text: str) -> str:
    """The text with every default that has a value."""
    return re.sub(r"^#(?=\w+ ?=)", "", EMPTY.sub("", text), flags=re.MULTILINE)


def comparable(settings: Settings) -> Settings:
    """The settings without what differs at each start, where they come from, and the upstreams."""
    return replace(settings, config=None, server_secret=Secret("secret"), upstreams=())


def test_a_settings_file_without_values_has_the_defaults(read: Read, load: Load) -> None:
    settings = read(settings_file({}, [{"name": "docker.io"}]))
    assert [one.name for one in settings.upstreams] == ["docker.io"]
    assert comparable(settings) == comparable(load())


def test_each_default_in_the_settings_file_is_the_default(read: Read, load: Load) -> None:
    text = uncommented(settings_file({}, [{"name": "docker.io"}]))
    assert len(tomllib.loads(text)) > 20
    assert comparable(read(text)) == comparable(load())


def test_each_default_in_the_environment_file_is_the_default(load: Load) -> None:
    lines = [line for line in uncommented(environment_file()).splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    assert len(variables) > 20
    settings = load(**variables)
    assert comparable(settings) == comparable(load())
    assert settings.upstreams[0] == load().upstreams[0]


def test_the_files_name_every_setting_and_nothing_else() -> None:
    variables = set(re.findall(r"^#(\w+)=", environment_file(), re.MULTILINE))
    settings = {name.upper() for name in KNOWN_NAMES if not name.endswith("_file")} | {"HTPASSWD_FILE"}
    assert settings - variables == {name.upper() for name in ONLY_IN_FILE} | {"DEFAULT_UPSTREAM"}
    assert variables - settings == set()
    keys = set(re.findall(r"^#(\w+) =", settings_file({}, []), re.MULTILINE))
    assert keys - KNOWN_NAMES == set()


def test_values_take_the_place_of_the_defaults(read: Read) -> None:
    values = {"port": 5000, "cache_dir": '/srv/a "cache"', "accounts": ["YW5uOmg="], "skip_auth_proxy": False}
    text = settings_file(values, OWN_UPSTREAM)
    assert "#port" not in text
    settings = read(text)
    assert (settings.port, settings.cache_dir) == (5000, Path('/srv/a "cache"'))
    assert settings.accounts == (Credentials("ann", "h"),)
    assert settings.upstreams[0].url == "https://quay.io"


def test_comments_have_no_links_and_no_long_lines() -> None:
    for text in (settings_file({}, []), environment_file()):
        comments = [line for line in text.splitlines() if line.startswith("# ")]
        assert [line for line in comments if "](" in line or len(line) > 120] == []


@pytest.mark.parametrize("value", ["a", 'a"b\\c', "a\nb\x7f\t", "ü", 1, 1.5, 60.0, True, ["a", "b"], []])
def test_a_value_is_written_as_toml(value: object) -> None:
    assert tomllib.loads(f"value = {toml(value)}") == {"value": value}


def test_the_environment_file_of_the_repository_is_up_to_date() -> None:
    found = (Path(__file__).parents[3] / ".env.example").read_text(encoding="utf-8")
    assert found == environment_file(), "run: scripts/docs --write"
