"""Builds what replicas share from the settings: content in an object store, and knowledge in Redis or Valkey."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from application.ports.index import KnowledgeIndex
from application.ports.shared import SharedKnowledge, SharedLeases, SharedService, SharedStore
from application.ports.telemetry import EventSink
from application.ports.turns import Turns
from domain.events import SharedTierOpened
from domain.ports import Clock
from domain.redis_address import RedisAddress
from entrypoints.settings import Settings, SettingsError


@dataclass(frozen=True)
class SharedTier:
    """The ports to what all replicas share. `services`: the shared store and the shared index, for operators.
    `knowledge`: the shared level of `index`.
    """

    store: SharedStore
    leases: SharedLeases
    turns: Turns
    index: KnowledgeIndex
    knowledge: SharedKnowledge
    services: tuple[SharedService, ...]


def prepare_shared_tier(settings: Settings) -> None:
    """Check, before any worker starts, that the library accepts SHARED_STORE and the variables of the store. Sends
    nothing, because the library must not start its threads before the fork. Raises SettingsError.
    """
    if settings.shared_store is None:
        return
    from adapters.shared.object_store import open_object_store  # noqa: PLC0415 - only replicas need obstore

    try:
        open_object_store(settings.shared_store)
    except ValueError as error:
        reason = str(error).removeprefix(f"{settings.shared_store}: ")
        raise SettingsError(
            f"SHARED_STORE: got {settings.shared_store!r}, which cannot be opened ({reason}); takes a store whose own "
            "variables are valid, such as AWS_REGION"
        ) from error


@asynccontextmanager
async def open_shared_tier(
    settings: Settings, replica: str, local: KnowledgeIndex, clock: Clock, events: EventSink
) -> AsyncIterator[SharedTier | None]:
    """The shared tier for one process of this replica; None if the settings define none. `replica`: the id of the
    replica; `local`: its own index. Sends nothing before the first use.
    """
    if settings.shared_store is None or settings.shared_index is None:
        yield None
        return
    from adapters.shared.index_service import IndexService  # noqa: PLC0415 - only replicas need redis and obstore
    from adapters.shared.object_store import ObstoreSharedStore, open_object_store  # noqa: PLC0415 - as above
    from adapters.shared.redis_connection import RedisConnection  # noqa: PLC0415 - as above
    from adapters.shared.redis_knowledge import RedisKnowledgeIndex  # noqa: PLC0415 - as above
    from adapters.shared.redis_leases import RedisLeases  # noqa: PLC0415 - as above
    from adapters.shared.redis_turns import RedisTurns  # noqa: PLC0415 - as above
    from adapters.shared.store_service import StoreService  # noqa: PLC0415 - as above
    from adapters.shared.two_level_knowledge import TwoLevelKnowledgeIndex  # noqa: PLC0415 - as above

    address = _index_address(settings, settings.shared_index)
    connection = RedisConnection(address, events)
    store = ObstoreSharedStore(open_object_store(settings.shared_store), settings.shared_store, events)
    knowledge = RedisKnowledgeIndex(connection, settings.table.upstreams, clock)
    events.emit(SharedTierOpened())
    try:
        yield SharedTier(
            store=store,
            leases=RedisLeases(connection, replica),
            turns=RedisTurns(connection),
            index=TwoLevelKnowledgeIndex(knowledge, local, clock),
            knowledge=knowledge,
            services=(StoreService(store, settings.shared_store), IndexService(connection, address)),
        )
    finally:
        await store.close()
        await connection.close()


def _index_address(settings: Settings, address: RedisAddress) -> RedisAddress:
    password = settings.shared_index_password
    return replace(address, password=password.value) if password else address
