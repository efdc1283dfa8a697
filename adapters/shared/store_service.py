"""StoreService: the shared store as operators see it."""

import secrets

from adapters.shared.object_store import ObstoreSharedStore
from application.ports.shared import ServiceExamination, SharedRecord, SharedUnavailable
from domain.digest import Digest

_PROBE_BYTES = 32
_PROBE = Digest.of(b"availability of the shared store")


class StoreService:
    """Implements SharedService."""

    setting = "SHARED_STORE"

    def __init__(self, store: ObstoreSharedStore, address: str) -> None:
        self._store = store
        self.address = address

    @property
    def failure(self) -> str:
        return self._store.failure

    async def check(self) -> None:
        await self._store.find(_PROBE)

    async def examine(self) -> ServiceExamination:
        """Write, read, list and delete a record that no upstream has sent, so that it is served to nobody."""
        content = secrets.token_bytes(_PROBE_BYTES)
        digest = Digest.of(content)
        record = SharedRecord(len(content), frozenset(), is_public=False, content=content)
        await self._store.put(digest, record)
        try:
            found = await self._store.find(digest)
            async for _ in self._store.records():
                break
        finally:
            await self._store.drop(digest)
        if found != record:
            raise SharedUnavailable(f"{self.address}: an object that was just written cannot be read")
        if await self._store.find(digest) is not None:
            raise SharedUnavailable(f"{self.address}: an object that was just deleted can be read")
        return ServiceExamination("objects can be written, read, listed and deleted")
