"""A configured folder that other users can write to: the service works in a subfolder of its own."""

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.safe_paths import SUBFOLDER
from domain.digest import Digest
from entrypoints.settings import SettingsError
from entrypoints.wiring.storage import open_storage, prepare_storage, storage_folder, sweep_storage
from tests.adapters.storage.places import UPSTREAM, process
from tests.adapters.storage.test_planted_links import tree
from tests.entrypoints.environment import Load
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink

pytestmark = pytest.mark.slow

DIGEST = Digest.of(b"content")
SERVICE, OTHER = 60001, 60002
"""Numbers of users, of whom nothing has to be known."""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """Below a folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "cache"
        folder.mkdir()
        folder.chmod(0o777)
        yield folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keep_something(load: Load, folder: Path) -> None:
    settings = load(CACHE_DIR=str(folder))
    prepare_storage(settings)
    sweep_storage(settings)

    async def go() -> None:
        async with open_storage(settings, StoppedClock(), RecordingEventSink()) as storage:
            await storage.store.put(DIGEST, b"content")
            await storage.index.advance_epoch()

    asyncio.run(go())


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o775, 0o770, 0o2770])
def test_where_others_can_write_all_lies_in_a_private_subfolder(bits: int, load: Load, shared: Path) -> None:
    shared.chmod(bits)
    keep_something(load, shared)
    assert [entry.name for entry in shared.iterdir()] == [SUBFOLDER]
    assert mode(shared / SUBFOLDER) & 0o777 == 0o700
    assert {"content", "index.sqlite3"} <= {entry.name for entry in (shared / SUBFOLDER).iterdir()}
    assert storage_folder(load(CACHE_DIR=str(shared))) == shared / SUBFOLDER


@pytest.mark.parametrize("bits", [0o700, 0o750, 0o755])
def test_where_only_the_service_can_write_all_lies_in_the_folder_itself(bits: int, load: Load, shared: Path) -> None:
    shared.chmod(bits)
    keep_something(load, shared)
    assert {"content", "index.sqlite3"} <= {entry.name for entry in shared.iterdir()}
    assert not (shared / SUBFOLDER).exists()
    assert storage_folder(load(CACHE_DIR=str(shared))) == shared


def test_a_subfolder_of_its_own_is_made_private(load: Load, shared: Path) -> None:
    (shared / SUBFOLDER).mkdir()
    (shared / SUBFOLDER).chmod(0o777)
    keep_something(load, shared)
    assert mode(shared / SUBFOLDER) == 0o700


def refusal(load: Load, folder: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        prepare_storage(load(CACHE_DIR=str(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_link_in_place_of_the_subfolder_is_refused_and_not_followed(load: Load, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    (tmp_path / "drafts" / "precious").write_bytes(b"precious")
    (shared / SUBFOLDER).symlink_to(tmp_path)
    before = tree(tmp_path)
    assert refusal(load, shared).startswith(f"CACHE_DIR: got {str(shared)!r}, which cannot be written to (")
    sweep_storage(load(CACHE_DIR=str(shared)))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["content", "drafts", "temporary", "index.sqlite3"])
def test_a_start_refuses_a_link_in_the_folder(name: str, load: Load, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(tmp_path / "outside")
    assert f"({name} in it is a symbolic link)" in refusal(load, tmp_path / "cache")


def test_the_configured_folder_itself_may_be_reached_by_a_link(load: Load, tmp_path: Path) -> None:
    """As systemd has it: StateDirectory= with DynamicUser= is a link into /var/lib/private. Held before."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    keep_something(load, tmp_path / "cache")
    assert (tmp_path / "real" / "content").is_dir()


@only_root
def test_a_subfolder_of_another_user_is_refused(load: Load, shared: Path) -> None:
    (shared / SUBFOLDER).mkdir(mode=0o700)
    os.chown(shared / SUBFOLDER, OTHER, OTHER)
    said = refusal(load, shared)
    assert f"other users can write to it, and {SUBFOLDER!r} in it belongs to another user, number {OTHER}" in said
    assert list((shared / SUBFOLDER).iterdir()) == []


@only_root
async def test_a_subfolder_that_changes_hands_while_the_service_runs_is_not_used(shared: Path) -> None:
    store = FilesystemContentStore(shared)
    await store.put(DIGEST, b"content")
    os.chown(shared / SUBFOLDER, OTHER, OTHER)
    assert await store.open(DIGEST) is None
    store.close()


@only_root
def test_a_folder_of_another_user_counts_as_one_that_others_can_write_to(load: Load, shared: Path) -> None:
    shared.chmod(0o755)
    os.chown(shared, OTHER, OTHER)
    keep_something(load, shared)
    assert [entry.name for entry in shared.iterdir()] == [SUBFOLDER]


# What is imported late is imported before the user changes: Python itself may lie where only root can read.
COMMAND = """
import concurrent.futures.thread, encodings.idna, encodings.punycode, os, sys
import entrypoints.commands.cache_commands, rich.cells
from entrypoints.cli import main
os.environ["CACHE_DIR"] = sys.argv[1]
if sys.argv[2] != "0":
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sys.argv[1:] = sys.argv[3:]
sys.exit(main())
"""


def command(folder: Path, user: int, *words: str) -> tuple[int, str]:
    """What `docker-image-proxy WORDS` does as that user: its exit status, and what it says."""
    with process(COMMAND, folder, user, *words) as running:
        said, _ = running.communicate(timeout=60)
        return running.returncode, said


def cache_of(user: int, folder: Path) -> None:
    """Have that user's service put something into the cache."""
    with process(PUT, folder, user) as running:
        assert running.wait() == 0


PUT = """
import asyncio, concurrent.futures.thread, os, sys
from pathlib import Path
from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteUsageIndex
from application.ports.index import Used
from domain.digest import Digest

user = int(sys.argv[2])
os.setgroups([]); os.setgid(user); os.setuid(user)
folder, digest = Path(sys.argv[1]), Digest.of(b"content")
async def main():
    store, database = FilesystemContentStore(folder), SqliteDatabase(folder / "index.sqlite3")
    await store.put(digest, b"content")
    await SqliteUsageIndex(database).keep([Used(digest, 7, 1.0)])
    await database.close()
asyncio.run(main())
"""


@only_root
@pytest.mark.parametrize("owner", [0, SERVICE])
@pytest.mark.parametrize("bits", [0o777, 0o700])
def test_the_commands_of_root_find_the_place_that_the_service_uses(owner: int, bits: int, shared: Path) -> None:
    if (owner, bits) == (0, 0o700):
        pytest.skip("the service could not write there")
    os.chown(shared, owner, owner)
    shared.chmod(bits)
    cache_of(SERVICE, shared)
    status, said = command(shared, 0, "cache", "stats")
    assert (status, "1 manifests and blobs" in said) == (0, True)
    # What a command of root makes there belongs to the service.
    assert {path.lstat().st_uid for path in shared.rglob("*")} == {SERVICE}
    status, said = command(shared, 0, "cache", "prune", "--older-than", "0")
    assert (status, said[:9]) == (0, "1 removed")
    assert list(shared.rglob(DIGEST.encoded)) == []


@only_root
def test_root_looks_into_a_cache_that_its_owner_cannot_reach_but_warms_none(shared: Path) -> None:
    """As with DynamicUser=, whose folders lie in /var/lib/private: the service reaches them in its own namespace."""
    os.chown(shared, SERVICE, SERVICE)
    shared.chmod(0o700)
    cache_of(SERVICE, shared)
    shared.parent.chmod(0o700)
    status, said = command(shared, 0, "cache", "stats")
    assert (status, "1 manifests and blobs" in said) == (0, True)
    assert {path.lstat().st_uid for path in shared.rglob("*")} == {SERVICE}
    assert command(shared, 0, "warm", "library/nginx:latest")[0] != 0
    assert not (shared / SUBFOLDER).exists()


@only_root
def test_commands_of_a_third_user_are_refused(shared: Path) -> None:
    cache_of(SERVICE, shared)
    status, said = command(shared, OTHER, "cache", "stats")
    assert (status != 0, said) == (True, "")


@only_root
@pytest.mark.parametrize(
    "name", ["drafts", "temporary", "content", "content/sha256", f"content/sha256/{DIGEST.encoded[:2]}"]
)
def test_a_prune_by_root_removes_nothing_outside_of_the_cache(name: str, tmp_path: Path) -> None:
    """The case of the issue: a folder of the cache is a link by the time that root prunes."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    cache.mkdir(mode=0o700)
    cache_of(0, cache)
    for place in (outside, outside / "sha256" / DIGEST.encoded[:2], outside / DIGEST.encoded[:2]):
        place.mkdir(parents=True, exist_ok=True)
        for file in (DIGEST.encoded, f"{UPSTREAM.fingerprint}-sha256-{DIGEST.encoded}"):
            (place / file).write_bytes(b"content")
            os.utime(place / file, (0, 0))
    before = tree(outside)
    link = cache / name
    if link.exists():
        link.rename(tmp_path / "gone")
    link.symlink_to(outside)
    command(cache, 0, "cache", "prune", "--older-than", "0")
    assert tree(outside) == before
