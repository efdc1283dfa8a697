"""Clients that all want the same blob."""

import asyncio
from typing import Any

from domain.tokens import IssuedToken
from tests.application.support.service import ALICE, BOB, PRIVATE, Service
from tests.application.support.watched import (
    ALICES,
    ALICES_OTHER,
    BIG_DIGEST,
    BOBS,
    NOBODYS,
    PIECE,
    WatchedUpstream,
    soon,
    watched,
)


class Crowd:
    """Clients of one service that all want the large blob."""

    def __init__(self, scheme: str = "bearer", *, upstream: WatchedUpstream | None = None, **settings: Any) -> None:
        self.upstream = upstream or watched(scheme)
        self.service = Service(self.upstream, **settings)

    async def logged_in(self) -> None:
        await self.service.warm_up()
        now = int(self.service.clock.now())
        for login, header in [(ALICE, ALICES), (ALICE, ALICES_OTHER), (BOB, BOBS), (None, NOBODYS)]:
            token = IssuedToken(header.removeprefix("Bearer "), 3000, now)
            await self.service.parts.caller_identities().remember(login, token)

    def read(self, header: str | None = ALICES, **others: Any) -> "asyncio.Task[bytes]":
        query = {"name": PRIVATE, "digest": BIG_DIGEST, **others}
        return asyncio.create_task(self.service.blob(header, **query))

    @property
    def download(self) -> Any:
        return self.service.parts.downloads().running(self.service.parts.upstream(), BIG_DIGEST)

    async def under_way(self, size: int = 2 * PIECE) -> None:
        await soon(lambda: self.download is not None and self.download.present.length >= size)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.service.events)

    def run(self, action: Any) -> Any:
        async def whole() -> Any:
            await self.logged_in()
            return await action

        return self.service.run(whole())
