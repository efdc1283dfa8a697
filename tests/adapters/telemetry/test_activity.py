"""What workers are doing, in memory that several processes share."""

import mmap
import os
from dataclasses import replace

import pytest

from adapters.telemetry.activity import SharedActivity, WorkerActivityTable
from application.ports.activity import Activity
from domain.digest import Digest
from domain.names import RepositoryName
from tests.contracts.storage import HUB, QUAY
from tests.contracts.test_activity_table import DOWNLOAD, OTHER, TROUBLES, downloads
from tests.fakes.clock import StoppedClock


class WatchedMemory(mmap.mmap):
    """Counts what is written."""

    writes = 0

    def __setitem__(self, *written: object) -> None:
        self.writes += 1
        super().__setitem__(*written)  # type: ignore[call-overload]


def test_nothing_is_written_while_there_is_nothing_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedActivity(1)
    memory = WatchedMemory(-1, len(shared._memory))
    monkeypatch.setattr(shared, "_memory", memory)
    table = WorkerActivityTable(shared.of(0), [HUB], StoppedClock())
    table.report(Activity())  # the worker before may have left something
    for _ in range(5):
        table.report(Activity())
    assert memory.writes == 1
    table.report(Activity([DOWNLOAD]))
    table.report(Activity())
    table.report(Activity())
    assert memory.writes == 3


def test_what_a_killed_worker_left_is_gone_when_another_one_takes_its_place() -> None:
    shared, clock = SharedActivity(2), StoppedClock()
    child = os.fork()
    if child == 0:
        WorkerActivityTable(shared.of(0), [HUB], clock).report(Activity([DOWNLOAD]))
        os._exit(0)
    os.waitpid(child, 0)
    other = WorkerActivityTable(shared.of(1), [HUB], clock)
    assert downloads(other) == [DOWNLOAD]
    WorkerActivityTable(shared.of(0), [HUB], clock).report(Activity())
    assert other.all() == []


def test_a_download_from_a_removed_upstream_is_omitted() -> None:
    shared, clock = SharedActivity(1), StoppedClock()
    WorkerActivityTable(shared.of(0), [HUB, QUAY], clock).report(Activity([DOWNLOAD, OTHER], TROUBLES))
    after = WorkerActivityTable(shared.of(0), [QUAY], clock)
    (activity,) = after.all()
    assert (list(activity.downloads), list(activity.troubles)) == ([OTHER], [TROUBLES[1]])


def test_of_very_many_downloads_the_first_are_reported() -> None:
    shared, clock = SharedActivity(2), StoppedClock()
    first, second = (WorkerActivityTable(shared.of(worker), [HUB, QUAY], clock) for worker in (0, 1))
    names = tuple(RepositoryName(f"{'a' * 250}{number}") for number in range(8))
    many = [replace(DOWNLOAD, digest=Digest.of(str(number).encode()), repositories=names) for number in range(500)]
    second.report(Activity([OTHER]))
    first.report(Activity(many))
    activity, others = first.all()
    assert list(activity.downloads) == many[: len(activity.downloads)]
    assert len(activity.downloads) > 20
    assert list(others.downloads) == [OTHER]


def test_a_long_message_leaves_room_for_downloads() -> None:
    table = WorkerActivityTable(SharedActivity(1).of(0), [HUB], StoppedClock())
    table.report(Activity([DOWNLOAD], [replace(TROUBLES[0], message="x" * 100_000)]))
    (activity,) = table.all()
    assert activity.troubles[0].message == "x" * 512
    assert list(activity.downloads) == [DOWNLOAD]


def test_a_reader_never_sees_half_of_what_another_process_writes() -> None:
    shared = SharedActivity(1)
    child = os.fork()
    if child == 0:
        for number in range(1, 10**9):
            shared.write(0, 1.0, str(number % 10).encode() * (number % 3000 + 1))
    try:
        while not list(shared.read(1.0)):
            pass
        read = [content for _ in range(3000) for content in shared.read(1.0)]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert len(read) > 1000
    assert [content for content in read if len(set(content)) != 1] == []
