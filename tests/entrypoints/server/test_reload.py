"""Good settings come into force everywhere, bad ones nowhere, and the log says once which it was."""

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
    """A main process with two workers, whose settings are to be what `load` gives."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self.app = create_app(settings_of(workers=2), f"reloading_{next(_NUMBERS)}")
        self.channel = SettingsChannel(2)
        self.load: Callable[[], Settings] = settings_of
        self.reloading = SettingsReloader(self.app, self._load, self.channel)
        self._log = log

    def _load(self) -> Settings:
        return self.load()

    def answers(self, *taken: bool) -> None:
        for row, one in enumerate(taken):
            self.channel.acknowledge(row, self.channel.number, applied=one)

    def begin(self, **values: object) -> None:
        self.load = lambda: settings_of(workers=2, **values)
        self.reloading.begin()

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self._log.records]


@pytest.fixture
def main(caplog: pytest.LogCaptureFixture) -> Main:
    caplog.set_level(logging.INFO)
    return Main(caplog)


def test_good_settings_are_posted_and_it_is_said_when_all_workers_have_them(main: Main) -> None:
    main.begin(tag_ttl=5, shutdown_grace=9)
    published = main.channel.read()
    assert published is not None
    assert published.settings.tag_ttl == 5
    main.answers(True)
    main.reloading.check()
    assert (main.said, main.reloading.is_running) == ([], True)
    main.answers(True, True)
    main.reloading.check()
    main.reloading.check()
    assert main.said == [("INFO", "settings reloaded; changed: SHUTDOWN_GRACE, TAG_TTL")]
    assert not main.reloading.is_running


def test_a_worker_that_is_forked_later_has_them_too(main: Main) -> None:
    main.begin(tag_ttl=5, shutdown_grace=9)
    assert main.app.ctx.settings.tag_ttl == 5
    assert main.app.config.GRACEFUL_SHUTDOWN_TIMEOUT == 9
    assert main.channel.number == 1


def refuse() -> Settings:
    raise SettingsError("TAG_TTL: got 'x'; takes seconds")


def fail() -> Settings:
    raise RuntimeError("nobody thought of this")


@pytest.mark.parametrize(("load", "reason"), [(refuse, ": TAG_TTL: got 'x'; takes seconds"), (fail, "")])
def test_bad_settings_change_nothing_and_it_is_said_why(main: Main, load: Any, reason: str) -> None:
    before = main.app.ctx.settings
    main.load = load
    main.reloading.begin()
    main.reloading.check()
    assert main.said == [("ERROR", f"settings not reloaded, the old ones stay in force{reason}")]
    assert main.app.ctx.settings is before
    assert (main.channel.number, main.channel.read(), main.reloading.is_running) == (0, None, False)
    main.begin(tag_ttl=5)
    assert main.channel.number == 1, "the next one may be good"


def test_a_cache_folder_that_cannot_be_written_to_is_a_bad_setting(main: Main, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    main.begin(cache_dir=str(tmp_path / "file"))
    assert "CACHE_DIR" in main.said[0][1]
    assert main.channel.number == 0
    main.begin(cache_dir=str(tmp_path / "folder"))
    assert (tmp_path / "folder").is_dir()
    assert main.channel.number == 1


def test_it_is_said_how_many_workers_could_not_take_them(main: Main) -> None:
    main.begin(tag_ttl=5)
    main.answers(True, False)
    main.reloading.check()
    assert main.said == [("ERROR", "settings reloaded, but not by 1 of 2 workers; changed: TAG_TTL")]


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(main: Main) -> None:
    main.begin()
    main.answers(True)
    for _ in range(1000):
        main.reloading.check()
    assert main.said == [("ERROR", "settings reloaded, but not by 1 of 2 workers; changed: none")]
    assert not main.reloading.is_running


def test_what_wants_a_restart_is_named_and_what_should_make_one_think_is_said(main: Main) -> None:
    main.begin(port=5001, accounts="YW5uOmFubnM=", host="0.0.0.0")
    main.answers(True, True)
    main.reloading.check()
    assert main.said == [
        ("INFO", "settings reloaded; changed: ACCOUNTS"),
        ("WARNING", "these settings need a restart and were not changed: HOST, PORT"),
    ]
    main.begin(log_format="text", upstream_timeout=1)
    main.answers(True, True)
    main.reloading.check()
    assert main.said[-1] == ("INFO", "settings reloaded; changed: ACCOUNTS, UPSTREAM_TIMEOUT")


def test_no_worker_is_forked_while_settings_are_read(main: Main) -> None:
    """In a process of its own: what is to happen at a fork cannot be taken back."""
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
    main.reloading.guard_forks()
    thread = threading.Thread(target=main.reloading.begin)
    thread.start()
    reading.wait()
    worker = os.fork()
    if not worker:
        has_all = main.app.ctx.settings.tag_ttl == 5 and main.channel.number == 1
        os._exit(0 if has_all and not main.reloading._reading.locked() else 1)
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


async def test_a_worker_takes_one_post_after_the_other(
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
