"""What it takes to fill a blob."""

from dataclasses import dataclass

from application.cache.background import Background
from application.cache.provenance import Provenance
from application.cache.read_rights import ReadRights
from application.cache.sweep_cache import SweepCache
from application.ports.content_store import ContentStore
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import UpstreamRegistry
from domain.ports import Clock


@dataclass(frozen=True)
class FillParts:
    """`retries`: how often in a row a download that broke off is gone on with, without one byte gained."""

    store: ContentStore
    registry: UpstreamRegistry
    rights: ReadRights
    sweep: SweepCache
    provenance: Provenance
    events: EventSink
    background: Background
    retries: int
    clock: Clock
