"""New settings reach every worker completely, and the main process reads the acknowledgements."""

import os
import select

import pytest

from entrypoints.server.settings_channel import SettingsChannel
from tests.fakes.parts import SECRET, settings_of


def is_notified(channel: SettingsChannel, worker: int) -> bool:
    return bool(select.select([channel.notification(worker)], [], [], 0)[0])


def test_a_notification_stays_until_it_is_cleared() -> None:
    channel = SettingsChannel(2)
    assert not is_notified(channel, 0)
    channel.publish(settings_of())
    channel.publish(settings_of())
    assert is_notified(channel, 0)
    assert is_notified(channel, 1)
    channel.clear_notification(0)
    channel.clear_notification(0)
    assert not is_notified(channel, 0)
    assert is_notified(channel, 1)


def test_published_settings_are_read_with_number_and_secrets() -> None:
    channel = SettingsChannel(1)
    assert channel.read() is None
    long, short = settings_of(upstream_names=",".join(f"a{n}.test" for n in range(9999))), settings_of(tag_ttl=5)
    for number, settings in enumerate((long, short), start=1):
        channel.publish(settings)
        published = channel.read()
        assert published is not None
        assert published == (number, settings)
        assert published.settings.server_secret.value == SECRET


def test_a_process_that_was_forked_earlier_reads_and_acknowledges() -> None:
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


def test_an_incomplete_publication_is_not_read() -> None:
    channel = SettingsChannel(1)
    channel.publish(settings_of())
    for size in (os.fstat(channel._memory).st_size - 1, 40, 10):
        os.ftruncate(channel._memory, size)
        assert channel.read() is None


@pytest.mark.parametrize(
    ("acknowledgements", "is_acknowledged", "missing"),
    [
        ([], False, 2),
        ([(0, True)], False, 1),
        ([(0, True), (1, False)], True, 1),
        ([(0, False), (0, True), (1, True)], True, 0),
    ],
)
def test_the_main_process_counts_acknowledgements(
    acknowledgements: list[tuple[int, bool]], missing: int, *, is_acknowledged: bool
) -> None:
    channel = SettingsChannel(2)
    for worker in (0, 1):
        channel.acknowledge(worker, 0, applied=True)
    channel.publish(settings_of())
    for worker, applied in acknowledgements:
        channel.acknowledge(worker, channel.number, applied=applied)
    assert (channel.is_acknowledged, channel.failed_workers) == (is_acknowledged, missing)
