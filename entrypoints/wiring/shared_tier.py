"""What the replicas of a mirror share, if the settings say that there are several."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from application.ports.index import KnowledgeIndex
from application.ports.login_counts import SharedLoginCounts
from application.ports.pins import PinIndex
from application.ports.rate_limits import RateLimitBoard
from application.ports.shared import SharedKnowledge, SharedLeases, SharedPins, SharedService, SharedStore, SharedUses
from application.ports.telemetry import EventSink
from application.ports.turns import Turns
from domain.ports import Clock
from domain.value import Value
from entrypoints.settings import Settings


class SharedTier(Value, frozen=True):
    """The ports to what all replicas share. `index`: what they know, with the index of this replica as second level;
    `knowledge`: its shared level; `pins`: the pinned images, on both levels, and `protection`: their content;
    `services`: the shared store and the shared index, for operators.
    """

    store: SharedStore
    leases: SharedLeases
    turns: Turns
    rate_limits: RateLimitBoard
    login_counts: SharedLoginCounts
    index: KnowledgeIndex
    knowledge: SharedKnowledge
    uses: SharedUses
    pins: PinIndex
    protection: SharedPins
    services: tuple[SharedService, ...]


class LocalIndex(Value, frozen=True):
    """The indexes of this replica. `pins`: None if the process is no replica."""

    knowledge: KnowledgeIndex
    pins: PinIndex | None


def prepare_shared_tier(settings: Settings) -> None:
    """Check, before any worker starts, that the library accepts SHARED_STORE and the variables of the store. Sends
    nothing, because the library must not start its threads before the fork. Raises SettingsError.
    """
    if settings.is_shared:
        from entrypoints.wiring.shared_adapters import check_store  # noqa: PLC0415 - imports obstore and redis

        check_store(settings)


@asynccontextmanager
async def open_shared_tier(
    settings: Settings, replica: str, local: LocalIndex, clock: Clock, events: EventSink
) -> AsyncIterator[SharedTier | None]:
    """The shared tier for one process of this replica; None if the settings define none. `replica`: the id of the
    replica; `local`: its own indexes. Sends nothing before the first use.
    """
    if not settings.is_shared:
        yield None
        return
    from entrypoints.wiring.shared_adapters import connected_tier  # noqa: PLC0415 - imports obstore and redis

    async with connected_tier(settings, replica, local, clock, events) as shared:
        yield shared
