"""The environment and the settings file beside each other."""

import os
from functools import partial
from pathlib import Path

import pytest

from entrypoints.settings import SettingsError, load_settings
from tests.entrypoints.environment import Load, Read, refusal
from tests.fakes.htpasswd import lines_of


@pytest.mark.timeout(10)
def test_what_is_no_file_or_no_text_stops_the_start(load: Load, tmp_path: Path) -> None:
    """A pipe would block; at the second reading it is empty, which would mean no accounts and the default upstream."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "utf-16").write_text("port = 1", encoding="utf-16")
    for name, reason in (
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("pipe", "Is a pipe or a device, not a file"),
        ("utf-16", "not UTF-8 text"),
    ):
        with pytest.raises(SettingsError) as stopped:
            load(CONFIG=str(tmp_path / name))
        assert str(stopped.value) == f"CONFIG: got {str(tmp_path / name)!r}: cannot be read ({reason})"


def test_the_environment_goes_before_the_file(read: Read) -> None:
    settings = read('port = 5000\nhost = "::1"\ntag_ttl = 5\ntrusted_proxies = ["10.0.0.0/8", "::1"]', PORT="6000")
    assert (settings.port, settings.host, settings.tag_ttl) == (6000, "::1", 5)
    assert len(settings.trusted_proxies) == 2
    assert settings.table.upstreams[0].name == "docker.io", "without upstreams, the environment's one"


def test_it_does_so_whether_it_has_the_value_or_a_file_that_holds_it(read: Read, tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("YW5uOmh1bnRlcjI=")
    for in_file, variables in (
        ('accounts = ["Ym9iOmh1bnRlcjI="]', {"ACCOUNTS_FILE": f"{tmp_path}/ann"}),
        ('accounts_file = "/nowhere"', {"ACCOUNTS": "YW5uOmh1bnRlcjI="}),
    ):
        assert [account.username for account in read(in_file, **variables).accounts] == ["ann"]


@pytest.mark.parametrize("name", ["RULES", "UPSTREAMS"])
def test_a_variable_does_not_take_the_place_of_what_only_the_file_can_hold(read: Read, name: str) -> None:
    """It did, and without a word: nothing was denied any more."""
    text = 'upstreams = ["quay.io"]\n[[rules]]\ndeny = ["quay.io/**"]'
    assert refusal(partial(read, text), **{name: "x"}).startswith(f"{name}: can only be set in the settings file")


def test_a_variable_may_be_written_small_as_all_others(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "mirror.toml").write_text("port = 1234")
    assert load(config=str(file)).port == 1234
    assert load(CONFIG="").port == 8080


def test_an_argument_goes_before_the_variable(read: Read, tmp_path: Path, load: Load) -> None:
    other = tmp_path / "other.toml"
    other.write_text("port = 1234")
    with pytest.raises(SettingsError, match=r"CONFIG: got .*nowhere"):
        load(CONFIG=f"{tmp_path}/nowhere")
    assert load_settings(other).port == 1234


@pytest.mark.parametrize("name", ["UPSTREAM_REGISTRY", "UPSTREAM_TIMEOUT", "SEARCH_UPSTREAM"])
def test_the_environments_one_upstream_and_several_contradict_each_other(read: Read, name: str) -> None:
    line = refusal(partial(read, 'upstreams = ["quay.io"]'), **{name: "https://ghcr.io"})
    assert line.startswith(f"{name}: is for a single upstream")


def test_a_setting_of_the_only_upstream_in_the_file_contradicts_upstreams_there_too(read: Read, tmp_path: Path) -> None:
    line = refusal(partial(read, 'upstream_timeout = 5\nupstreams = ["quay.io"]'))
    assert line.startswith(f"{tmp_path}/mirror.toml: upstream_timeout: is for a single upstream")


def test_a_variable_of_another_program_does_not_hide_a_setting_of_the_file(read: Read, tmp_path: Path) -> None:
    (file := tmp_path / "htpasswd").write_text(lines_of({"bob": "x"}))
    assert read(f'htpasswd_file = "{file}"', HTPASSWD="x").htpasswd_file == file


def test_the_environment_sets_the_times_of_each_upstream_that_has_none_of_its_own(read: Read) -> None:
    settings = read('upstreams = [{name = "quay.io", tag_ttl = 7}, {name = "ghcr.io"}]', TAG_TTL="9")
    assert [settings.cache_policy.times_of(one).tag_ttl for one in settings.table.upstreams] == [7, 9]


def test_a_path_with_braces_is_repeated_as_it_is(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "{a}.toml").write_text('upstreams = [{name = "quay.io", timeout = 0}]')
    assert refusal(load, CONFIG=str(file)).startswith(f"{file}: upstream quay.io: timeout: got 0; ")
