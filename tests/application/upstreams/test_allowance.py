"""Whose allowance is remembered, and whose is shown."""

import pytest

from application.upstreams.back_offs import Allowances
from domain.allowance import Allowance, RateLimit
from domain.records import ANONYMOUS_CALLER, CallerId, mirror_caller
from tests.contracts.storage import HUB, QUAY
from tests.fakes.allowances import MemoryAllowanceTable
from tests.fakes.clock import StoppedClock

TOLD = RateLimit(100, 76, 21600)
ALICE = CallerId("login of-alice")


@pytest.mark.parametrize("caller", [ANONYMOUS_CALLER, mirror_caller("with a login")])
def test_nobodys_and_the_mirrors_own_are_shown(caller: CallerId) -> None:
    clock = StoppedClock()
    allowances = Allowances(MemoryAllowanceTable(), clock)
    at = clock.now()
    allowances.saw(HUB, caller, TOLD)
    clock.advance(60)
    assert allowances.newest(HUB) == allowances.last(HUB, caller) == Allowance(100, 76, 21600, at)
    assert allowances.newest(QUAY) is allowances.last(QUAY, caller) is None


def test_a_callers_own_is_nobody_elses_business() -> None:
    clock = StoppedClock()
    allowances = Allowances(MemoryAllowanceTable(), clock)
    allowances.saw(HUB, ALICE, TOLD)
    assert allowances.last(HUB, ALICE) == TOLD.seen(clock.now())
    assert allowances.last(HUB, ANONYMOUS_CALLER) is None
    assert allowances.newest(HUB) is None


def test_callers_without_end_are_not_all_remembered() -> None:
    allowances = Allowances(MemoryAllowanceTable(), StoppedClock())
    for number in range(4097):
        allowances.saw(HUB, CallerId(f"token {number}"), TOLD)
    assert allowances.last(HUB, CallerId("token 0")) is None
    assert allowances.last(HUB, CallerId("token 4096")) is not None
