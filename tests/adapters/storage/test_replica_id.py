"""The id that all processes of one replica share."""

import re
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from adapters.storage.replica_id import make_replica_id, replica_id
from adapters.storage.safe_paths import SUBFOLDER


def made(folder: Path) -> str:
    make_replica_id(folder)
    return replica_id(folder)


def test_an_id_is_made_once_and_differs_between_replicas(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert made(tmp_path / "a") == first
    assert made(tmp_path / "b") != first
    assert stat.S_IMODE((tmp_path / "a" / "replica-id").stat().st_mode) == 0o600


def test_processes_that_start_together_get_the_same_id(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        assert len(set(pool.map(made, [tmp_path] * 16))) == 1


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 32, b"0" * 33, b"\xff" * 32])
def test_a_damaged_id_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "replica-id").write_bytes(content)
    assert re.fullmatch("[0-9a-f]{32}", replica_id(tmp_path)), "a process has an id in any case"
    assert (tmp_path / "replica-id").read_bytes() == content
    found = made(tmp_path)
    assert (tmp_path / "replica-id").read_text() == found == replica_id(tmp_path)


def test_the_id_is_in_the_private_subfolder_where_others_can_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    found = made(tmp_path)
    assert (tmp_path / SUBFOLDER / "replica-id").read_text() == found
    assert not (tmp_path / "replica-id").exists()


def test_without_a_file_a_process_has_an_id_of_its_own_and_writes_nothing(tmp_path: Path) -> None:
    first, second = (replica_id(tmp_path / "none") for _ in range(2))
    assert first != second
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("0" * 32)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "replica-id").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        make_replica_id(tmp_path / "cache")
    assert replica_id(tmp_path / "cache") != "0" * 32
