"""Fixtures: the service over real sockets, with a registry that has a quirk as its upstream."""

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
    """`await mirror(odd, **settings)` starts a registry with the quirk `odd` and the service, without a cache.

    `bearer`: the registry requires a token; its challenge names this scope, unless it is empty.
    """
    # Do not load the certificate authorities of the machine: the tests do not need them, and loading takes time.
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
