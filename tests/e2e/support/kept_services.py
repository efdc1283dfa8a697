"""Services that keep running for the next test with equal settings, because a start takes seconds."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from tests.e2e.support.service import Proxy, serving

Settings = tuple[tuple[str, str], ...]


class Services:
    """`with services(SETTING="value") as proxy: ...` is like `serving`, but the service runs on after the block."""

    def __init__(self, folder: Path, port: int | None = None, most: int = 6) -> None:
        self._folder = folder
        self._port = port
        # With a fixed port only one service can run at a time.
        self._most = 1 if port else most
        self._running: dict[Settings, tuple[Proxy, ExitStack]] = {}

    def __call__(self, **settings: str) -> AbstractContextManager[Proxy]:
        key = tuple(sorted(settings.items()))
        if key not in self._running or self._running[key][0].process.returncode is not None:
            while len(self._running) >= self._most:
                self._stop(next(iter(self._running)))
            stack = ExitStack()
            self._running[key] = stack.enter_context(serving(self._folder, self._port, **settings)), stack
        return nullcontext(self._running[key][0])

    def close(self) -> None:
        for key in list(self._running):
            self._stop(key)

    def _stop(self, key: Settings) -> None:
        self._running.pop(key)[1].close()
