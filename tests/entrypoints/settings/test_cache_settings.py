"""The folder of the cache and its size limit."""

import os
from pathlib import Path

import pytest

from entrypoints.settings.values import CacheSize
from tests.entrypoints.environment import Load, refusal

SIZES = {
    "1048576": 2**20,
    "1MiB": 2**20,
    "1 mib": 2**20,
    "2MB": 2 * 10**6,
    "2mb": 2 * 10**6,
    "1.5GiB": 3 * 2**29,
    "20G": 20 * 10**9,
    "3TiB": 3 * 2**40,
    "3t": 3 * 10**12,
    "2097152B": 2**21,
    " 20GiB ": 20 * 2**30,
}


@pytest.mark.parametrize("text", SIZES)
def test_all_common_forms_of_a_size_are_accepted(load: Load, text: str) -> None:
    assert load(CACHE_SIZE=text).cache_size == CacheSize(size=SIZES[text])


@pytest.mark.parametrize(("text", "share"), [("80%", 0.8), ("100%", 1), ("0.5 %", 0.005), ("33.3%", 0.333)])
def test_a_share_is_one_of_the_file_system_of_the_folder(load: Load, tmp_path: Path, text: str, share: float) -> None:
    size = load(CACHE_SIZE=text).cache_size
    assert size.share == pytest.approx(share)
    state = os.statvfs(tmp_path)
    assert size.of(tmp_path) == pytest.approx(state.f_blocks * state.f_frsize * share, rel=1e-6)
    with pytest.raises(OSError, match="none"):
        size.of(tmp_path / "none")


def test_a_size_needs_no_folder(tmp_path: Path) -> None:
    assert CacheSize(size=5).of(tmp_path / "none") == 5


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "1MiB2", "1e9", "20 Gigabytes", "GiB", "%", "0%", "101%", "80 % of it", "٣GiB", "1_000_000", "nan"],
)
def test_an_invalid_size_is_refused_in_one_line(load: Load, text: str) -> None:
    line = refusal(load, CACHE_SIZE=text)
    assert line.startswith(f"CACHE_SIZE: got {text!r}; takes ")
    assert "\n" not in line


@pytest.mark.parametrize("text", ["1", "1048575", "1023KiB", "1MB"])
def test_a_cache_below_the_minimum_size_is_refused(load: Load, text: str) -> None:
    assert refusal(load, CACHE_SIZE=text).endswith("takes 1MiB at least; CACHE_DIR=off turns the cache off")


@pytest.mark.parametrize("text", ["off", "OFF", " Off "])
def test_the_cache_can_be_turned_off(load: Load, text: str) -> None:
    assert load(CACHE_DIR=text).cache_dir is None


def test_a_folder_may_be_in_the_home_of_a_user(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of-somebody")
    assert load(CACHE_DIR="~/cache").cache_dir == Path("/home/of-somebody/cache")


@pytest.mark.parametrize("text", ["cache", "./cache", "../cache", "none", "false", " ", "~nobody-of-this-name/cache"])
def test_a_relative_folder_is_refused(load: Load, text: str) -> None:
    assert refusal(load, CACHE_DIR=text) == f"CACHE_DIR: got {text!r}; takes an absolute path, or off"


def test_without_a_home_the_folder_must_be_set(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is not in /etc/passwd."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # which is what it does then
    assert load(CACHE_DIR="/cache").cache_dir == Path("/cache")
    assert refusal(load).startswith("CACHE_DIR: ")


def test_a_relative_data_home_is_ignored(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG Base Directory Specification: "All paths must be absolute ... relative ... ignore"."""
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    folder = load().cache_dir
    assert folder is None or folder.is_absolute()
