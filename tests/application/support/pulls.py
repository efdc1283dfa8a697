"""A service whose manifests are pulled, and what its upstream is asked then."""

from typing import Any

from application.manifests.manifest_query import ManifestAnswer
from domain.tokens import IssuedToken
from tests.application.support.service import ALICE, BOB, PRIVATE, Service
from tests.application.support.watched import ALICES, BOBS, NOBODYS, watched


class Pulls:
    def __init__(self, scheme: str = "bearer", **settings: Any) -> None:
        self.upstream = watched(scheme)
        self.service = Service(self.upstream, **{"tag_ttl": 60, "grant_ttl": 300} | settings)

    def run(self, action: Any) -> Any:
        async def whole() -> Any:
            await self.service.warm_up()
            await self.login()
            return await action

        return self.service.run(whole())

    async def login(self, seconds: int = 86400, service: Service | None = None) -> None:
        one = service or self.service
        for login, header in [(ALICE, ALICES), (BOB, BOBS), (None, NOBODYS)]:
            token = IssuedToken(header.removeprefix("Bearer "), seconds, int(one.clock.now()))
            await one.parts.caller_identities().remember(login, token)

    async def pull(self, header: str | None = ALICES, **query: Any) -> ManifestAnswer:
        return await self.service.manifest(header, **{"name": PRIVATE} | query)

    def asked(self) -> list[str]:
        """The requests since the last look."""
        methods = ["HEAD" if fetch.head else "GET" for fetch in self.upstream.asked]
        self.upstream.asked.clear()
        return methods
