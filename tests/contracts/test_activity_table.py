"""The contract of ActivityTable."""

from dataclasses import replace

import pytest

from adapters.telemetry.activity import SharedActivity, WorkerActivityTable
from application.ports.activity import Activity, ActivityTable, DownloadState, UpstreamTrouble
from domain.digest import Digest
from domain.names import RepositoryName
from tests.contracts.storage import HUB, QUAY
from tests.fakes.activity import MemoryActivityTable
from tests.fakes.clock import StoppedClock

EACH = pytest.mark.parametrize("player", ["real", "fake"])
DOWNLOAD = DownloadState(
    HUB,
    Digest.of(b"a"),
    (RepositoryName("library/nginx"), RepositoryName("team/app")),
    has_more=True,
    started_at=1_800_000_000.25,
    present=2**40,
    total=2**41,
    speed=1234.5,
    connections=4,
    readers=2,
)
OTHER = replace(DOWNLOAD, upstream=QUAY, digest=Digest.of(b"b", "sha512"), total=None, speed=None, has_more=False)
TROUBLES = (
    UpstreamTrouble(HUB, is_back_off=True, message='too many requests: "ä"\n', until=1_800_000_600.5),
    UpstreamTrouble(QUAY, is_back_off=False, message="cannot connect", until=1_800_000_005.0),
)


def two_workers(player: str, clock: StoppedClock) -> tuple[ActivityTable, ActivityTable]:
    if player == "fake":
        reports: dict[int, tuple[float, Activity]] = {}
        return MemoryActivityTable(0, clock, reports), MemoryActivityTable(1, clock, reports)
    shared = SharedActivity(2)
    one, other = (WorkerActivityTable(shared.of(worker), [HUB, QUAY], clock) for worker in (0, 1))
    return one, other


def downloads(table: ActivityTable) -> list[DownloadState]:
    return [one for activity in table.all() for one in activity.downloads]


@EACH
def test_the_table_is_empty_at_the_start(player: str) -> None:
    one, other = two_workers(player, StoppedClock())
    one.report(Activity())
    assert one.all() == other.all() == []


@EACH
def test_every_worker_sees_what_one_reports(player: str) -> None:
    one, other = two_workers(player, StoppedClock())
    one.report(Activity([DOWNLOAD, OTHER], TROUBLES))
    for table in (one, other):
        (activity,) = table.all()
        assert list(activity.downloads) == [DOWNLOAD, OTHER]
        assert tuple(activity.troubles) == TROUBLES


@EACH
def test_workers_do_not_replace_each_others_reports(player: str) -> None:
    one, other = two_workers(player, StoppedClock())
    one.report(Activity([DOWNLOAD]))
    other.report(Activity([OTHER]))
    assert downloads(one) == downloads(other) == [DOWNLOAD, OTHER]


@EACH
def test_a_report_replaces_the_one_before_it(player: str) -> None:
    one, other = two_workers(player, StoppedClock())
    one.report(Activity([DOWNLOAD, OTHER], TROUBLES))
    one.report(Activity([replace(OTHER, present=7)]))
    assert downloads(other) == [replace(OTHER, present=7)]
    one.report(Activity())
    assert other.all() == []


@EACH
def test_a_worker_that_reports_no_longer_is_omitted_soon(player: str) -> None:
    clock = StoppedClock()
    one, other = two_workers(player, clock)
    one.report(Activity([DOWNLOAD]))
    clock.advance(4)
    assert downloads(other) == [DOWNLOAD]
    clock.advance(2)
    assert other.all() == []
