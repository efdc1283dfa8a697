"""New settings reach every worker, whole, and the main process hears what became of them."""

import os
import select

import pytest

from entrypoints.server.settings_channel import SettingsChannel
from tests.fakes.parts import SECRET, settings_of


def rings(channel: SettingsChannel, row: int) -> bool:
    return bool(select.select([channel.notification(row)], [], [], 0)[0])


def test_every_bell_rings_until_it_is_heard() -> None:
    channel = SettingsChannel(2)
    assert not rings(channel, 0)
    channel.publish(settings_of())
    channel.publish(settings_of())
    assert rings(channel, 0)
    assert rings(channel, 1)
    channel.clear_notification(0)
    channel.clear_notification(0)
    assert not rings(channel, 0)
    assert rings(channel, 1)


def test_what_is_posted_is_read_with_its_number_and_its_secrets() -> None:
    channel = SettingsChannel(1)
    assert channel.read() is None
    long, short = settings_of(upstream_names=",".join(f"a{n}.test" for n in range(9999))), settings_of(tag_ttl=5)
    for number, settings in enumerate((long, short), start=1):
        channel.publish(settings)
        published = channel.read()
        assert published is not None
        assert published == (number, settings)
        assert published.settings.server_secret.value == SECRET


def test_a_process_that_was_forked_before_reads_it_too_and_answers() -> None:
    channel = SettingsChannel(1)
    child = os.fork()
    if not child:
        select.select([channel.notification(0)], [], [], 10)
        published = channel.read()
        channel.acknowledge(
            0, published.number if published else 0, applied=bool(published and published.settings.tag_ttl == 5)
        )
        os._exit(0)
    channel.publish(settings_of(tag_ttl=5))
    os.waitpid(child, 0)
    assert channel.is_acknowledged
    assert channel.failed_workers == 0


def test_half_of_it_is_nothing() -> None:
    channel = SettingsChannel(1)
    channel.publish(settings_of())
    for size in (os.fstat(channel._memory).st_size - 1, 40, 10):
        os.ftruncate(channel._memory, size)
        assert channel.read() is None


@pytest.mark.parametrize(
    ("answers", "is_acknowledged", "missing"),
    [
        ([], False, 2),
        ([(0, True)], False, 1),
        ([(0, True), (1, False)], True, 1),
        ([(0, False), (0, True), (1, True)], True, 0),
    ],
)
def test_the_main_process_knows_who_has_them(
    answers: list[tuple[int, bool]], missing: int, *, is_acknowledged: bool
) -> None:
    channel = SettingsChannel(2)
    for row in (0, 1):
        channel.acknowledge(row, 0, applied=True)
    channel.publish(settings_of())
    for row, taken in answers:
        channel.acknowledge(row, channel.number, applied=taken)
    assert (channel.is_acknowledged, channel.failed_workers) == (is_acknowledged, missing)
