"""The format of the log, and when lines are written."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from entrypoints.server.logging_setup import configure_logging
from entrypoints.settings import Settings
from tests.fakes.parts import settings_of

OURS = logging.getLogger("docker_image_proxy")
ACCESS = logging.getLogger("docker_image_proxy.access")

Configure = Callable[..., None]


@pytest.fixture
def configure(capsys: pytest.CaptureFixture[str]) -> Iterator[Configure]:
    """Configures the logging of this process as a service does, and restores it after the test."""
    root = logging.getLogger()
    before, level, our_level = root.handlers[:], root.level, OURS.level
    root.handlers.clear()

    def configured(**settings: object) -> None:
        capsys.readouterr()
        configure_logging(settings_of(**settings))

    yield configured
    root.handlers[:] = before
    root.setLevel(level)
    OURS.setLevel(our_level)


def test_text_line_has_time_level_message(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    ACCESS.info("GET %(path)s", {"path": "/v2/"}, extra={"path": "/v2/", "status": 200})
    out, err = capsys.readouterr()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO GET /v2/\n", err)
    assert out == ""


def test_a_json_line_has_its_own_fields(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    ACCESS.info("GET %(path)s", {"path": "/v2/"}, extra={"path": "/v2/", "status": 200, "account": None})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "name": "docker_image_proxy.access",
        "message": "GET /v2/",
        "path": "/v2/",
        "status": 200,
        "account": None,
    }


def test_json_line_is_always_one_line(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    OURS.error("it\nbroke", exc_info=KeyError("two\nlines"))
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "it\nbroke"
    assert "KeyError" in json.loads(line)["exc_info"]


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_applies_to_the_log_of_the_service(
    configure: Configure, capsys: pytest.CaptureFixture[str], level: str, shown: int
) -> None:
    configure(log_level=level)
    for write in (ACCESS.debug, ACCESS.info, OURS.warning, OURS.error):
        write("said")
    assert capsys.readouterr().err.count("said") == shown


def test_other_libraries_log_warnings_only(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_level="debug")
    library = logging.getLogger("somebody.else")
    library.info("chatter")
    library.warning("trouble")
    assert "chatter" not in (written := capsys.readouterr().err)
    assert "trouble" in written


def test_configuring_twice_writes_lines_once(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    configure()
    OURS.warning("said")
    assert capsys.readouterr().err.count("said") == 1


async def test_lines_of_one_loop_iteration_are_written_together_and_in_order(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()
    for number in range(5):
        ACCESS.info("line %d", number)
    assert capsys.readouterr().err == ""
    await asyncio.sleep(0)
    assert re.findall(r"line (\d)", capsys.readouterr().err) == list("01234")
    ACCESS.info("the next turn")
    await asyncio.sleep(0)
    assert "the next turn" in capsys.readouterr().err


async def test_warnings_are_written_immediately_and_in_order(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()
    ACCESS.info("first")
    OURS.warning("second")
    assert re.findall("first|second|third", capsys.readouterr().err) == ["first", "second"]
    ACCESS.info("third")
    await asyncio.sleep(0)
    assert re.findall("first|second|third", capsys.readouterr().err) == ["third"]


async def test_a_line_that_cannot_be_formatted_does_not_stop_other_lines(
    configure: Configure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    ACCESS.info("%d", "no number")
    ACCESS.info("said")
    await asyncio.sleep(0)
    assert "said" in capsys.readouterr().err


async def test_waiting_lines_are_written_when_the_process_ends(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()
    ACCESS.info("the last")
    logging.getLogger().handlers[0].flush()
    assert "the last" in capsys.readouterr().err


def test_lines_of_many_threads_are_all_written(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    threads = [Thread(target=lambda: [ACCESS.info("said") for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capsys.readouterr().err.count("said\n") == 200


def test_each_line_has_its_own_second(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    handler = logging.getLogger().handlers[0]
    for created in (1_800_000_000.0, 1_800_000_000.25, 1_800_000_001.999, 1_800_000_000.5):
        record = logging.LogRecord("a", logging.WARNING, "", 0, "said", (), None)
        record.created, record.msecs = created, (created % 1) * 1000
        handler.handle(record)
    times = re.findall(r":(\d\d,\d{3}) WARNING", capsys.readouterr().err)
    assert times == ["00,000", "00,250", "01,999", "00,500"]


def test_log_settings_have_defaults() -> None:
    assert (Settings().log_level, Settings().log_format) == ("info", "text")


def test_a_log_that_cannot_be_written_does_not_stop_requests(configure: Configure) -> None:
    configure()
    (handler,) = logging.getLogger().handlers
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - no regular file
        handler.setStream(full)  # type: ignore[attr-defined]
        OURS.warning("lost line")

        async def work() -> str:
            ACCESS.info("nor is this")
            await asyncio.sleep(0.01)
            return "done"

        assert asyncio.run(work()) == "done"
        with contextlib.suppress(OSError):
            full.close()
