"""The contract of RateLimitBoard, against a real Valkey and against the fake."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest

from adapters.shared.redis_rate_limits import RedisRateLimits
from application.ports.rate_limits import AllowanceNews, BackOffNews, RateLimitBoard
from application.ports.shared import SharedUnavailable
from domain.allowance import Allowance
from domain.records import ANONYMOUS_CALLER, CallerId
from tests.contracts.replicas import connected, silence, with_each_kind
from tests.contracts.storage import HUB, QUAY
from tests.e2e.support.valkey import Valkey
from tests.fakes.rate_limits import FakeRateLimits, RateLimitTable

NOW = 1_800_000_000.25
BACK_OFF = BackOffNews(
    HUB.fingerprint,
    ANONYMOUS_CALLER,
    manifests=True,
    at=NOW,
    until=NOW + 30,
    message="減速",
    is_from_upstream=True,
)
ALLOWANCE = AllowanceNews(HUB.fingerprint, CallerId("login ab12"), Allowance(100, 76, 21600, NOW))


@dataclass(frozen=True)
class TwoReplicas:
    one: RateLimitBoard
    other: RateLimitBoard
    lose: Callable[[], None]
    """The index loses its data."""
    stop: Callable[[], None]
    """The index does not answer any more."""


@asynccontextmanager
async def two_replicas(kind: str, server: Valkey) -> AsyncIterator[TwoReplicas]:
    if kind == "fake":
        table = RateLimitTable()
        yield TwoReplicas(
            FakeRateLimits(table), FakeRateLimits(table), table.lose, lambda: setattr(table, "is_away", True)
        )
        return
    async with connected(server) as connections:
        yield TwoReplicas(*map(RedisRateLimits, connections), server.flush, partial(silence, server, connections))


by_two_replicas = with_each_kind(two_replicas)


@by_two_replicas
async def test_the_board_is_empty_at_the_start(replicas: TwoReplicas) -> None:
    assert await replicas.one.exchange([]) == []


@by_two_replicas
async def test_each_replica_receives_what_one_publishes_once(replicas: TwoReplicas) -> None:
    await replicas.other.exchange([])
    await replicas.one.exchange([BACK_OFF, ALLOWANCE])
    assert await replicas.other.exchange([]) == [BACK_OFF, ALLOWANCE]
    assert await replicas.other.exchange([]) == []


@by_two_replicas
async def test_a_replica_that_starts_later_receives_everything(replicas: TwoReplicas) -> None:
    for number in range(3):
        news = replace(BACK_OFF, caller=CallerId(f"login {number}"))
        await replicas.one.exchange([news])
    assert [one.caller for one in await replicas.other.exchange([])] == ["login 0", "login 1", "login 2"]


@by_two_replicas
async def test_of_several_news_about_the_same_the_newest_counts(replicas: TwoReplicas) -> None:
    newer = replace(BACK_OFF, at=NOW + 1, until=NOW + 1)
    await replicas.one.exchange([newer])
    await replicas.one.exchange([BACK_OFF])
    assert await replicas.other.exchange([]) == [newer]


@by_two_replicas
async def test_upstreams_callers_and_kinds_of_requests_are_independent(replicas: TwoReplicas) -> None:
    news = [
        BACK_OFF,
        replace(BACK_OFF, manifests=False),
        replace(BACK_OFF, caller=CallerId("login ab12")),
        replace(BACK_OFF, upstream=QUAY.fingerprint),
        ALLOWANCE,
        replace(ALLOWANCE, upstream=QUAY.fingerprint),
    ]
    await replicas.one.exchange(news)
    assert await replicas.other.exchange([]) == news


@by_two_replicas
async def test_after_the_index_has_lost_its_data_new_news_arrive(replicas: TwoReplicas) -> None:
    await replicas.one.exchange([BACK_OFF])
    await replicas.other.exchange([])
    replicas.lose()
    news = [replace(ALLOWANCE, caller=CallerId(f"login {number}")) for number in range(5)]
    await replicas.one.exchange(news)
    assert await replicas.other.exchange([]) == news


@by_two_replicas
async def test_without_the_index_an_exchange_fails(replicas: TwoReplicas) -> None:
    replicas.stop()
    with pytest.raises(SharedUnavailable):
        await replicas.one.exchange([BACK_OFF])
