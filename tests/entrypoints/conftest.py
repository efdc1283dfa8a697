"""The service over real sockets of this process, with a fake upstream behind it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sanic import Sanic

from entrypoints.http.app import create_app
from entrypoints.settings import Settings, load_settings
from entrypoints.settings.sources import KNOWN_NAMES
from tests.entrypoints.environment import Load, Read
from tests.entrypoints.service import Service
from tests.fakes.parts import opening, settings_of
from tests.fakes.upstream import FakeUpstream

Start = Callable[..., Awaitable[Service]]

_NUMBERS = count()  # Sanic refuses a second application of the same name


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of the shell that runs the tests, a proxy above all, is none of the tests'."""
    for name in KNOWN_NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """The settings of an environment that has these variables."""

    def loaded(**variables: str) -> Settings:
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            return load_settings()

    return loaded


@pytest.fixture
def read(load: Load, tmp_path: Path) -> Read:
    """The settings of a file with this text, and of an environment that has these variables."""

    def loaded(text: str, **variables: str) -> Settings:
        file = tmp_path / "mirror.toml"
        file.write_text(text)
        return load(CONFIG=str(file), **variables)

    return loaded


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def start(
    sanic_client: Any,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    upstream: FakeUpstream,
) -> Iterator[Start]:
    """Starts the service with settings: `await start(accounts="...")`."""
    # pytest-sanic 1.9.1 was written for an older Sanic. It sets a property that is read-only now ...
    monkeypatch.setattr(Sanic, "is_running", property(lambda _: True, lambda _, __: None), raising=False)
    running: list[Any] = []

    async def started(*, parts: Any = None, **settings: object) -> Service:
        app = create_app(settings_of(**settings), f"service_{next(_NUMBERS)}", parts or opening(upstream))
        app.config.TOUCHUP = False  # it rewrites Sanic's own classes, which works once in a process
        # ... and knows neither of these steps nor that listeners are signals now.
        await app._startup()
        await app._server_event("init", "before", loop)
        running.append(client := await sanic_client(app, trust_env=False, verify=False))
        return Service(client, upstream)

    async def stop(client: Any) -> None:
        await client.close()
        await client.app._server_event("shutdown", "after", loop)

    yield started
    for client in running:
        loop.run_until_complete(stop(client))
