"""Settings from the environment together with a settings file."""

import os
from functools import partial
from pathlib import Path

import pytest

from entrypoints.settings import SettingsError, load_settings
from tests.entrypoints.environment import Load, Read, refusal
from tests.fakes.htpasswd import lines_of


@pytest.mark.timeout(10)
def test_a_path_that_is_not_a_text_file_is_an_error(load: Load, tmp_path: Path) -> None:
    """Reading a pipe would block. A second read would return nothing: no accounts, and the default upstream."""
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


def test_the_environment_takes_precedence_over_the_file(read: Read) -> None:
    settings = read('port = 5000\nhost = "::1"\ntag_ttl = 5\ntrusted_proxies = ["10.0.0.0/8", "::1"]', PORT="6000")
    assert (settings.port, settings.host, settings.tag_ttl) == (6000, "::1", 5)
    assert len(settings.trusted_proxies) == 2
    assert settings.table.upstreams[0].name == "docker.io", "without upstreams, the environment's one"


def test_a_variable_and_its_file_variant_both_take_precedence(read: Read, tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("YW5uOmh1bnRlcjI=")
    for in_file, variables in (
        ('accounts = ["Ym9iOmh1bnRlcjI="]', {"ACCOUNTS_FILE": f"{tmp_path}/ann"}),
        ('accounts_file = "/nowhere"', {"ACCOUNTS": "YW5uOmh1bnRlcjI="}),
    ):
        assert [account.username for account in read(in_file, **variables).accounts] == ["ann"]


@pytest.mark.parametrize("name", ["RULES", "UPSTREAMS"])
def test_settings_of_the_file_only_are_refused_as_variables(read: Read, name: str) -> None:
    """Such a variable would silently replace the rules of the file, and nothing would be denied."""
    text = 'upstreams = ["quay.io"]\n[[rules]]\ndeny = ["quay.io/**"]'
    assert refusal(partial(read, text), **{name: "x"}).startswith(f"{name}: can only be set in the settings file")


def test_variables_can_be_in_lower_case(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "mirror.toml").write_text("port = 1234")
    assert load(config=str(file)).port == 1234
    assert load(CONFIG="").port == 8080


def test_the_config_argument_takes_precedence_over_the_variable(read: Read, tmp_path: Path, load: Load) -> None:
    other = tmp_path / "other.toml"
    other.write_text("port = 1234")
    with pytest.raises(SettingsError, match=r"CONFIG: got .*nowhere"):
        load(CONFIG=f"{tmp_path}/nowhere")
    assert load_settings(other).port == 1234


@pytest.mark.parametrize("name", ["UPSTREAM_REGISTRY", "UPSTREAM_TIMEOUT", "SEARCH_UPSTREAM"])
def test_a_variable_of_the_only_upstream_contradicts_upstreams_in_the_file(read: Read, name: str) -> None:
    line = refusal(partial(read, 'upstreams = ["quay.io"]'), **{name: "https://ghcr.io"})
    assert line.startswith(f"{name}: is for a single upstream")


def test_a_key_of_the_only_upstream_contradicts_upstreams_in_the_file(read: Read, tmp_path: Path) -> None:
    line = refusal(partial(read, 'upstream_timeout = 5\nupstreams = ["quay.io"]'))
    assert line.startswith(f"{tmp_path}/mirror.toml: upstream_timeout: is for a single upstream")


def test_a_variable_of_another_program_does_not_hide_a_setting_of_the_file(read: Read, tmp_path: Path) -> None:
    (file := tmp_path / "htpasswd").write_text(lines_of({"bob": "x"}))
    assert read(f'htpasswd_file = "{file}"', HTPASSWD="x").htpasswd_file == file


def test_times_in_the_environment_apply_to_upstreams_without_their_own(read: Read) -> None:
    settings = read('upstreams = [{name = "quay.io", tag_ttl = 7}, {name = "ghcr.io"}]', TAG_TTL="9")
    assert [settings.cache_policy.times_of(one).tag_ttl for one in settings.table.upstreams] == [7, 9]


def test_upstreams_without_their_own_number_of_connections_have_that_of_the_service(read: Read) -> None:
    text = 'download_connections = 8\nupstreams = [{name = "quay.io", download_connections = 1}, {name = "ghcr.io"}]'
    for service, numbers in (("", [1, 8]), ("2", [1, 2])):
        settings = read(text, DOWNLOAD_CONNECTIONS=service)
        assert list(map(settings.download_policy.connections_to, settings.table.upstreams)) == numbers


def test_the_variable_sets_the_connections_of_the_only_upstream(load: Load) -> None:
    settings = load(DOWNLOAD_CONNECTIONS="7")
    assert settings.download_policy.connections_to(settings.table.upstreams[0]) == 7


def test_a_path_with_braces_is_shown_unchanged(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "{a}.toml").write_text('upstreams = [{name = "quay.io", timeout = 0}]')
    assert refusal(load, CONFIG=str(file)).startswith(f"{file}: upstream quay.io: timeout: got 0; ")
