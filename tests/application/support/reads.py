"""Callers who read a blob, step by step."""

from collections.abc import Coroutine
from typing import Any

import pytest

from domain.errors import (
    RegistryError,
    Unauthorized,
    UpstreamUnreachable,
)
from domain.tokens import IssuedToken
from tests.application.support.service import ALICE, BOB, PRIVATE, Service
from tests.application.support.watched import ALICES, ALICES_OTHER, BOBS, NOBODYS, watched


class Reads:
    """A service whose upstream gave alice and bob their tokens through it."""

    def __init__(self, **settings: object) -> None:
        self.upstream = watched()
        self.service = Service(self.upstream, **settings)

    def run(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        async def all_steps() -> list[Any]:
            await self.service.warm_up()
            await self.relogin()
            return [await step for step in steps]

        return self.service.run(all_steps())

    async def relogin(self, seconds: int = 86400) -> None:
        now = int(self.service.clock.now())
        for login, header in [(ALICE, ALICES), (ALICE, ALICES_OTHER), (BOB, BOBS), (None, NOBODYS)]:
            token = IssuedToken(header.removeprefix("Bearer "), seconds, now)
            await self.service.parts.caller_identities().remember(login, token)

    async def read(self, header: str = ALICES, **others: Any) -> bytes:
        return await self.service.blob(header, **{"name": PRIVATE, **others})

    async def refused(self, header: str = ALICES, error: type[Exception] = Unauthorized, **others: Any) -> None:
        with pytest.raises(error):
            await self.read(header, **others)

    async def asked(self, count: int) -> None:
        assert len(self.upstream.asked) == count, self.upstream.asked
        self.upstream.asked.clear()

    async def later(self, seconds: float) -> None:
        self.service.clock.advance(seconds)

    async def refusing(self, error: RegistryError | None, *, head_only: bool = False) -> None:
        self.upstream.refuse = lambda fetch: error if fetch.head or not head_only else None

    async def gone(self) -> None:
        self.upstream.fault = UpstreamUnreachable("gone")
