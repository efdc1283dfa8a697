"""Valid settings take effect in all processes, invalid ones in none, and the result is logged once."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from entrypoints.http.app import create_app
from entrypoints.server.reload import SettingsReloader, apply_published_settings
from entrypoints.server.settings_channel import SettingsChannel
from entrypoints.settings import Settings, SettingsError
from entrypoints.wiring.container import Container
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import until
from tests.fakes.parts import opening, settings_of
from tests.fakes.upstream import FakeUpstream

_NUMBERS = count()  # Sanic refuses a second application of the same name


class Main:
    """A main process with two workers. `load` returns the settings that it reads."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self.app = create_app(settings_of(workers=2), f"reloading_{next(_NUMBERS)}")
        self.channel = SettingsChannel(2)
        self.load: Callable[[], Settings] = settings_of
        self.reloader = SettingsReloader(self.app, self._load, self.channel)
        self._caplog = log

    def _load(self) -> Settings:
        return self.load()

    def acknowledge(self, *applied: bool) -> None:
        for worker, one in enumerate(applied):
            self.channel.acknowledge(worker, self.channel.number, applied=one)

    def begin(self, **values: object) -> None:
        self.load = lambda: settings_of(workers=2, **values)
        self.reloader.begin()

    @property
    def log(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self._caplog.records]


@pytest.fixture
def main(caplog: pytest.LogCaptureFixture) -> Main:
    caplog.set_level(logging.INFO)
    return Main(caplog)


def test_valid_settings_are_published_and_the_result_is_logged_when_all_workers_have_them(main: Main) -> None:
    main.begin(tag_ttl=5, shutdown_grace=9)
    published = main.channel.read()
    assert published is not None
    assert published.settings.tag_ttl == 5
    main.acknowledge(True)
    main.reloader.check()
    assert (main.log, main.reloader.is_running) == ([], True)
    main.acknowledge(True, True)
    main.reloader.check()
    main.reloader.check()
    assert main.log == [("INFO", "settings reloaded; changed: SHUTDOWN_GRACE, TAG_TTL")]
    assert not main.reloader.is_running


def test_a_worker_that_is_forked_later_has_the_new_settings(main: Main) -> None:
    main.begin(tag_ttl=5, shutdown_grace=9)
    assert main.app.ctx.settings.tag_ttl == 5
    assert main.app.config.GRACEFUL_SHUTDOWN_TIMEOUT == 9
    assert main.channel.number == 1


def refuse() -> Settings:
    raise SettingsError("TAG_TTL: got 'x'; takes seconds")


def fail() -> Settings:
    raise RuntimeError("unexpected")


@pytest.mark.parametrize(("load", "reason"), [(refuse, ": TAG_TTL: got 'x'; takes seconds"), (fail, "")])
def test_invalid_settings_change_nothing_and_the_reason_is_logged(main: Main, load: Any, reason: str) -> None:
    before = main.app.ctx.settings
    main.load = load
    main.reloader.begin()
    main.reloader.check()
    assert main.log == [("ERROR", f"settings not reloaded, the old ones stay in force{reason}")]
    assert main.app.ctx.settings is before
    assert (main.channel.number, main.channel.read(), main.reloader.is_running) == (0, None, False)
    main.begin(tag_ttl=5)
    assert main.channel.number == 1, "the next settings may be valid"


def test_a_cache_folder_that_cannot_be_written_to_is_an_invalid_setting(main: Main, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    main.begin(cache_dir=str(tmp_path / "file"))
    assert "CACHE_DIR" in main.log[0][1]
    assert main.channel.number == 0
    main.begin(cache_dir=str(tmp_path / "folder"))
    assert (tmp_path / "folder").is_dir()
    assert main.channel.number == 1


def test_the_number_of_workers_that_failed_is_logged(main: Main) -> None:
    main.begin(tag_ttl=5)
    main.acknowledge(True, False)
    main.reloader.check()
    assert main.log == [("ERROR", "settings reloaded, but not by 1 of 2 workers; changed: TAG_TTL")]


def test_the_wait_for_acknowledgements_ends(main: Main) -> None:
    main.begin()
    main.acknowledge(True)
    for _ in range(1000):
        main.reloader.check()
    assert main.log == [("ERROR", "settings reloaded, but not by 1 of 2 workers; changed: none")]
    assert not main.reloader.is_running


def test_settings_that_need_a_restart_and_warnings_are_logged(main: Main) -> None:
    main.begin(port=5001, accounts="YW5uOmFubnM=", host="0.0.0.0")
    main.acknowledge(True, True)
    main.reloader.check()
    assert main.log == [
        ("INFO", "settings reloaded; changed: ACCOUNTS"),
        ("WARNING", "these settings need a restart and were not changed: HOST, PORT"),
    ]
    main.begin(log_format="text", upstream_timeout=1)
    main.acknowledge(True, True)
    main.reloader.check()
    assert main.log[-1] == ("INFO", "settings reloaded; changed: ACCOUNTS, UPSTREAM_TIMEOUT")


def test_no_worker_is_forked_while_settings_are_read(main: Main) -> None:
    """Runs in a separate process, because functions that are registered for forks cannot be removed."""
    child = os.fork()
    if not child:
        os._exit(_fork_while_reading(main))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _fork_while_reading(main: Main) -> int:
    reading, read = threading.Event(), threading.Event()

    def load() -> Settings:
        reading.set()
        threading.Timer(0.2, read.set).start()
        read.wait()
        return settings_of(workers=2, tag_ttl=5)

    main.load = load
    main.reloader.guard_forks()
    thread = threading.Thread(target=main.reloader.begin)
    thread.start()
    reading.wait()
    worker = os.fork()
    if not worker:
        has_all = main.app.ctx.settings.tag_ttl == 5 and main.channel.number == 1
        os._exit(0 if has_all and not main.reloader._reading.locked() else 1)
    thread.join()
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


class Parts:
    """Implements `container_factory`, which may fail."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._open = opening(upstream)
        self.fault: Exception | None = None

    @asynccontextmanager
    async def __call__(self, settings: Settings, worker: int = 0) -> AsyncIterator[Container]:
        if self.fault:
            raise self.fault
        async with self._open(settings) as parts:
            yield parts


async def test_a_worker_applies_one_publication_after_another(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    parts, channel = Parts(upstream), SettingsChannel(1)
    service = await start(parts=parts)
    channel.publish(settings_of(tag_ttl=1))  # before it listens
    channel.number = 0  # of those that it was forked with
    task = asyncio.create_task(apply_published_settings(service.client.app, channel))
    runtimes = service.client.app.ctx.runtimes
    await until(lambda: runtimes.current.settings.tag_ttl == 1)
    channel.number = 1
    await until(lambda: channel.is_acknowledged)
    parts.fault = OSError("no descriptor is left")
    channel.publish(settings_of(tag_ttl=2))
    await until(lambda: channel.is_acknowledged)
    assert (channel.failed_workers, runtimes.current.settings.tag_ttl) == (1, 1)
    assert "keeps the old ones" in caplog.text
    parts.fault = None
    channel.publish(settings_of(tag_ttl=3))
    await until(lambda: channel.is_acknowledged)
    assert (channel.failed_workers, runtimes.current.settings.tag_ttl) == (0, 3)
    task.cancel()
