"""Memory that several processes write allowances to."""

import os

from adapters.telemetry.shared_allowances import SharedAllowances
from domain.allowance import Allowance

URL, OTHER = "https://upstream.test", "https://other.test"


def said(number: int, at: float) -> Allowance:
    """Its numbers all follow from the first: one that is mixed of two shows."""
    return Allowance(number, number + 1, number + 2, at)


def test_values_of_a_forked_worker_are_read_by_its_parent() -> None:
    shared = SharedAllowances(2, [URL, OTHER])
    child = os.fork()
    if child == 0:
        shared.write(1, OTHER, said(5, 2.5))
        os._exit(0)
    os.waitpid(child, 0)
    shared.write(0, OTHER, said(7, 1.5))
    assert shared.newest(OTHER) == said(5, 2.5)
    assert list(shared.all()) == [(OTHER, said(5, 2.5))]


def test_numbers_that_belong_together_are_read_together() -> None:
    shared = SharedAllowances(1, [URL])
    child = os.fork()
    if child == 0:
        for number in range(1, 10**9):
            shared.write(0, URL, said(number, float(number)))
    try:
        read = [one for one in (shared.newest(URL) for _ in range(20_000)) if one]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert read
    assert [one for one in read if one != said(one.limit, float(one.limit))] == []


def test_an_interrupted_write_is_ignored() -> None:
    shared = SharedAllowances(2, [URL])
    shared.write(0, URL, said(5, 1.0))
    shared.write(1, URL, said(6, 0.0))
    assert shared.newest(URL) == said(5, 1.0)


def test_an_unknown_upstream_is_ignored() -> None:
    shared = SharedAllowances(1)
    shared.write(0, URL, said(5, 1.0))
    assert shared.newest(URL) is None
    assert list(shared.all()) == []
