"""Pulls of an upstream that wants to be asked less."""

from dataclasses import replace
from typing import Any

import pytest

from application.ports.upstream import ResourceKind, UpstreamRequest
from domain.allowance import RateLimit
from domain.errors import RegistryError, UpstreamThrottled
from domain.events import BackOffStarted
from domain.names import RepositoryName
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, NAME
from tests.application.support.watched import NOBODYS

PUBLIC = {"name": NAME}
OTHER = {"name": RepositoryName("public/other")}
NEW = b'{"schemaVersion":2,"layers":[],"annotations":{"new":"yes"}}'


class Throttling(Pulls):
    """Pulls of an upstream that has two public images, one of which is in the cache; its time is over."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.upstream.public.add(str(OTHER["name"]))
        self.upstream.put_manifest(str(OTHER["name"]), "1", NEW)

    async def begin(self) -> None:
        await self.pull(NOBODYS, **PUBLIC)
        self.service.clock.advance(61)
        self.asked()

    def refuse(self, error: RegistryError | None, kind: ResourceKind = ResourceKind.MANIFEST) -> None:
        def refused(fetch: UpstreamRequest) -> RegistryError | None:
            return error if fetch.resource.kind is kind else None

        self.upstream.refuse = refused

    def allow(self, left: RateLimit | None) -> None:
        self.upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, allowance=left))

    async def stale(self) -> None:
        """The cached image comes, and says that it is not checked."""
        answer = await self.pull(NOBODYS, **PUBLIC)
        assert (answer.content, len(answer.warnings), answer.good_until) == (IMAGE_CONTENT, 1, 0.0)

    async def refused(self, header: str = NOBODYS, **query: Any) -> UpstreamThrottled:
        with pytest.raises(UpstreamThrottled) as caught:
            await self.pull(header, **OTHER | query)
        return caught.value

    def back_offs(self) -> list[BackOffStarted]:
        return [event for event in self.service.events if isinstance(event, BackOffStarted)]


def throttled(retry_after: str | None = None, left: RateLimit | None = None) -> UpstreamThrottled:
    return UpstreamThrottled("slow down", retry_after=retry_after, allowance=left)
