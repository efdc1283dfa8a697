"""Builds the storage from the settings: a folder with its index, or null storage if the cache is off."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.clock import SystemClock
from adapters.confirmed_images import ConfirmedImageIndex
from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.maintenance import FilesystemStorageMaintenance
from adapters.storage.network_file_systems import network_file_system
from adapters.storage.null_storage import NullContentStore, NullPinIndex, NullStorageMaintenance
from adapters.storage.replica_id import make_replica_id, replica_id
from adapters.storage.safe_paths import ACTING, cache_folder, owner_of_cache, require_usable
from adapters.storage.sqlite_database import NoDatabase, SqliteDatabase
from adapters.storage.sqlite_history import SqliteHistoryArchive
from adapters.storage.sqlite_index import SqliteImageIndex, SqliteKnowledgeIndex, SqliteUsageIndex
from adapters.storage.sqlite_pins import SqlitePinIndex
from adapters.storage.sqlite_schema import HISTORY
from application.ports.content import ContentStore, StorageMaintenance
from application.ports.history import HistoryArchive
from application.ports.index import ImageIndex, KnowledgeIndex, UsageIndex
from application.ports.lease import DownloadLeases
from application.ports.pins import PinIndex
from application.ports.telemetry import EventSink
from domain.ports import Clock
from entrypoints.settings import Settings, SettingsError
from entrypoints.wiring.shared_tier import LocalIndex, SharedTier, open_shared_tier, prepare_shared_tier

_INDEX = "index.sqlite3"
_HISTORY = "history.sqlite3"
_RESERVE = 16 * 1024 * 1024
"""Bytes of the disk that content must leave free, so that the index and the log can still be written."""


@dataclass(frozen=True)
class Storage:
    """The ports to all stored data. `shared`: what the replicas of this mirror share; None if it is alone."""

    store: ContentStore
    leases: DownloadLeases
    maintenance: StorageMaintenance
    index: KnowledgeIndex
    usage: UsageIndex
    images: ImageIndex
    pins: PinIndex
    history: HistoryArchive
    shared: SharedTier | None = None


def prepare_storage(settings: Settings) -> None:
    """Check, before any worker starts, that CACHE_DIR exists, is writable and supports file locks, and that the shared
    store can be opened. Raises SettingsError.
    """
    folder = settings.cache_dir
    if folder is None:
        return
    # A lease is a file lock. Network file systems lose locks, or give the same lock to two machines.
    if kind := network_file_system(folder):
        raise SettingsError(
            f"CACHE_DIR: got {str(folder)!r}, on a network file system ({kind}); takes a local one, or off"
        )
    try:
        require_usable(folder)
        if settings.is_shared:
            make_replica_id(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            f"CACHE_DIR: got {str(folder)!r}, which cannot be written to ({reason}); takes a folder of its own, or off"
        ) from error
    prepare_shared_tier(settings)


def storage_folder(settings: Settings) -> Path | None:
    """The folder that holds the cache, for messages: CACHE_DIR, or its subfolder if other users can write to CACHE_DIR.
    None if the cache is off.
    """
    if settings.cache_dir is None:
        return None
    try:
        with cache_folder(settings.cache_dir) as folder:
            return folder.path
    except OSError:
        return settings.cache_dir


def act_as_owner(settings: Settings, *, may_stay_root: bool) -> None:
    """If root runs a command beside the service, continue as the user who owns the cache. Then the command finds the
    folder that the service uses, the service owns the files that the command creates, and files that another user has
    planted there cannot make root act on them. Does nothing for other users.

    `may_stay_root`: if only root can reach the folder, as below /var/lib/private, the command stays root and acts for
    the owner. This suits commands that create no files. Raises SettingsError.
    """
    if os.geteuid() != 0 or settings.cache_dir is None:
        return
    user, group = owner_of_cache(settings.cache_dir)
    if user == 0:
        return
    try:
        if _reaches(settings.cache_dir, user, group):
            os.setgroups([group])
            os.setgid(group)
            os.setuid(user)
            return
        reason = "only root can reach it"
    except OSError as error:
        reason = f"this command cannot act as that user: {error.strerror}"
    if not may_stay_root:
        raise SettingsError(
            f"CACHE_DIR: got {str(settings.cache_dir)!r}, which belongs to user number {user} ({reason}); "
            "run this command as that user, where the service runs"
        )
    ACTING.number = user


def _reaches(folder: Path, user: int, group: int) -> bool:
    """Whether that user can open the cache. Called as root. Raises OSError if root may not act as that user."""
    groups, own_group = os.getgroups(), os.getegid()
    os.setgroups([group])
    os.setegid(group)
    os.seteuid(user)
    try:
        with cache_folder(folder, make=True):
            return True
    except OSError:
        return False
    finally:
        os.seteuid(0)
        os.setegid(own_group)
        os.setgroups(groups)


def sweep_storage(settings: Settings) -> None:
    """Remove the partial blobs of an earlier run. Called once, before any worker starts: if a worker dies later, other
    workers resume its partial blobs.
    """
    if settings.cache_dir is not None:
        with closing(FilesystemStorageMaintenance(settings.cache_dir, SystemClock())) as maintenance:
            maintenance.remove_abandoned_partial_blobs_now()


@asynccontextmanager
async def open_storage(settings: Settings, clock: Clock, events: EventSink) -> AsyncIterator[Storage]:
    """The storage of one process. Threads and connections are opened at first use. Raises SettingsError if the shared
    store cannot be opened.

    Commands can use the shared tier without a cache: then this process is no replica.
    """
    if settings.cache_dir is None:
        storage = no_storage()
        async with open_shared_tier(settings, "", LocalIndex(storage.index, None), clock, events) as shared:
            yield replace(storage, index=shared.index, pins=shared.pins, shared=shared) if shared else storage
        return
    folder = settings.cache_dir
    store = FilesystemContentStore(folder, _reserve(folder))
    maintenance = FilesystemStorageMaintenance(folder, clock)
    database, history = SqliteDatabase(folder / _INDEX), SqliteDatabase(folder / _HISTORY, HISTORY)
    index, images = SqliteKnowledgeIndex(database, clock), SqliteImageIndex(database)
    pins = SqlitePinIndex(database, clock)
    try:
        replica = replica_id(folder) if settings.is_shared else ""
        async with open_shared_tier(settings, replica, LocalIndex(index, pins), clock, events) as shared:
            yield Storage(
                store=store,
                leases=store.leases,
                maintenance=maintenance,
                index=shared.index if shared else index,
                usage=SqliteUsageIndex(database),
                images=ConfirmedImageIndex(images, shared.index) if shared else images,
                pins=shared.pins if shared else pins,
                history=SqliteHistoryArchive(history),
                shared=shared,
            )
    finally:
        await history.close()
        await database.close()
        maintenance.close()
        store.close()


def no_storage() -> Storage:
    """Null storage, used while the cache is off."""
    store, database = NullContentStore(), NoDatabase()
    return Storage(
        store=store,
        leases=store,
        maintenance=NullStorageMaintenance(),
        index=SqliteKnowledgeIndex(database, SystemClock()),
        usage=SqliteUsageIndex(database),
        images=SqliteImageIndex(database),
        pins=NullPinIndex(),
        history=SqliteHistoryArchive(database),
    )


def _reserve(folder: Path) -> int:
    """The bytes to leave free; fewer on a small disk."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return _RESERVE
    return min(_RESERVE, state.f_blocks * state.f_frsize // 16)
