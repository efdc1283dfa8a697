"""Builds what replicas share: content in an object store, and knowledge in Redis. Only replicas import this module."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from adapters.shared.index_service import IndexService
from adapters.shared.object_store import ObjectStore, ObstoreSharedStore, open_object_store
from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_leases import RedisLeases
from adapters.shared.redis_login_counts import RedisLoginCounts
from adapters.shared.redis_pins import RedisPins
from adapters.shared.redis_rate_limits import RedisRateLimits
from adapters.shared.redis_turns import RedisTurns
from adapters.shared.redis_uses import RedisUses
from adapters.shared.remembered_knowledge import RememberedKnowledgeIndex
from adapters.shared.store_service import StoreService
from adapters.shared.two_level_knowledge import TwoLevelKnowledgeIndex
from adapters.shared.two_level_pins import TwoLevelPinIndex
from application.ports.telemetry import EventSink
from domain.events import SharedTierOpened
from domain.ports import Clock
from domain.redis_address import RedisAddress
from entrypoints.settings import Settings, SettingsError
from entrypoints.wiring.keys import derived_key
from entrypoints.wiring.shared_tier import LocalIndex, SharedTier


def check_store(settings: Settings) -> None:
    """See prepare_shared_tier."""
    _opened(_addresses(settings)[0])


def _opened(address: str) -> ObjectStore:
    """Raises SettingsError."""
    try:
        return open_object_store(address)
    except ValueError as error:
        reason = str(error).removeprefix(f"{address}: ")
        raise SettingsError(
            f"SHARED_STORE: got {address!r}, which cannot be opened ({reason}); takes a store whose own variables are "
            "valid, such as AWS_REGION"
        ) from error


@asynccontextmanager
async def connected_tier(
    settings: Settings, replica: str, local: LocalIndex, clock: Clock, events: EventSink
) -> AsyncIterator[SharedTier]:
    """See open_shared_tier."""
    store_address, index_address = _addresses(settings)
    connection = RedisConnection(index_address, events)
    store = ObstoreSharedStore(_opened(store_address), store_address, events)
    knowledge = RememberedKnowledgeIndex(connection, settings.table.upstreams, clock)
    pins = RedisPins(connection)
    events.emit(SharedTierOpened())
    try:
        yield SharedTier(
            store=store,
            leases=RedisLeases(connection, replica),
            turns=RedisTurns(connection),
            rate_limits=RedisRateLimits(connection),
            login_counts=RedisLoginCounts(connection, derived_key(settings, "login attempts")),
            index=TwoLevelKnowledgeIndex(knowledge, local.knowledge, clock),
            knowledge=knowledge,
            uses=RedisUses(connection),
            pins=TwoLevelPinIndex(pins, local.pins),
            protection=pins,
            services=(StoreService(store, store_address), IndexService(connection, index_address)),
        )
    finally:
        await store.close()
        await connection.close()


def _addresses(settings: Settings) -> tuple[str, RedisAddress]:
    """Those of the store and the index, which the settings define together."""
    store, index, password = settings.shared_store, settings.shared_index, settings.shared_index_password
    if store is None or index is None:
        raise ValueError("the settings define no shared tier")
    return store, replace(index, password=password.value) if password else index
