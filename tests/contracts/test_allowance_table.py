"""The contract of AllowanceTable."""

from dataclasses import replace

import pytest

from adapters.telemetry.shared_allowances import SharedAllowances, WorkerAllowanceTable
from application.ports.telemetry import AllowanceTable
from domain.allowance import Allowance
from tests.contracts.storage import HUB, QUAY
from tests.fakes.allowances import MemoryAllowanceTable

EACH = pytest.mark.parametrize("player", ["real", "fake"])
SAID = Allowance(100, 76, 21600, 1_800_000_000.25)


def two_workers(player: str) -> tuple[AllowanceTable, AllowanceTable]:
    if player == "fake":
        lines: list[tuple[str, Allowance]] = []
        return MemoryAllowanceTable(lines), MemoryAllowanceTable(lines)
    shared = SharedAllowances(2, [HUB.url, QUAY.url])
    return WorkerAllowanceTable(shared, 0), WorkerAllowanceTable(shared, 1)


@EACH
def test_the_table_is_empty_at_the_start(player: str) -> None:
    one, other = two_workers(player)
    assert one.newest(HUB) is other.newest(HUB) is None


@EACH
def test_every_worker_sees_what_one_publishes(player: str) -> None:
    one, other = two_workers(player)
    one.publish(HUB, SAID)
    assert one.newest(HUB) == other.newest(HUB) == SAID


@EACH
def test_the_newest_allowance_of_any_worker_is_valid(player: str) -> None:
    one, other = two_workers(player)
    newest = replace(SAID, remaining=3, seen_at=SAID.seen_at + 60)
    one.publish(HUB, newest)
    other.publish(HUB, SAID)
    assert one.newest(HUB) == other.newest(HUB) == newest
    again = replace(SAID, remaining=100, seen_at=SAID.seen_at + 61)
    other.publish(HUB, again)
    assert one.newest(HUB) == other.newest(HUB) == again


@EACH
def test_each_upstream_has_its_own_allowance(player: str) -> None:
    one, other = two_workers(player)
    one.publish(HUB, SAID)
    assert other.newest(QUAY) is None
    other.publish(QUAY, replace(SAID, limit=2**40, remaining=0))
    assert one.newest(HUB) == SAID
    assert one.newest(QUAY) == replace(SAID, limit=2**40, remaining=0)


@EACH
def test_an_allowance_belongs_to_the_address_of_its_upstream(player: str) -> None:
    one, _ = two_workers(player)
    one.publish(HUB, SAID)
    assert one.newest(replace(HUB, search_url="https://search.test")) == SAID
