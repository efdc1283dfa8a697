"""The service over real sockets, and behind it a registry with a quirk."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from entrypoints.wiring.container import open_container
from tests.adapters.upstream.wire import WireServer
from tests.entrypoints.conftest import Start
from tests.entrypoints.quirks.odd_registry import Mirror, OddRegistry, Script

Behind = Callable[..., Awaitable[Mirror]]


@pytest.fixture
def mirror(start: Start, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    """`await mirror(odd, **settings)`: such a registry, and all of the service, without a cache, in front of it.

    `bearer`: the registry wants a token; its challenge is for that scope, where one is given.
    """
    # No machine's own authorities: nothing here is to depend on them, and to read them takes its time.
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    stack = AsyncExitStack()

    async def behind(odd: Script = lambda _: None, *, bearer: str | None = None, **settings: object) -> Mirror:
        server = await stack.enter_async_context(WireServer())
        registry = OddRegistry(server, odd)
        server.script = registry.answer
        if bearer is not None:
            registry.challenge = registry.bearer(bearer)
        asked = {"upstream_registry": server.url, "cache_dir": "off", **settings}
        return Mirror(await start(parts=open_container, **asked), registry)

    yield behind
    loop.run_until_complete(stack.aclose())
