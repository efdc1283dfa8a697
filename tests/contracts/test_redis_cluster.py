"""The contracts of everything that is kept in Redis, on a Redis Cluster."""

import asyncio
import inspect
import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.contracts import (
    test_knowledge_index,
    test_pin_index,
    test_rate_limit_board,
    test_shared_leases,
    test_shared_login_counts,
    test_shared_pins,
    test_shared_uses,
    test_turns,
)
from tests.e2e.support.valkey import Valkey, redis_cluster

pytestmark = pytest.mark.slow

KINDS = {
    test_knowledge_index: ("redis", "remembered"),
    test_pin_index: ("two replicas",),
    test_rate_limit_board: ("real",),
    test_shared_leases: ("real",),
    test_shared_login_counts: ("real",),
    test_shared_pins: ("real",),
    test_shared_uses: ("real",),
    test_turns: ("real",),
}


def _tests() -> Iterator[object]:
    for module, kinds in KINDS.items():
        for kind, (name, test) in itertools.product(kinds, vars(module).items()):
            if name.startswith("test_") and "kind" in inspect.signature(test).parameters:
                yield pytest.param(test, kind, id=f"{module.__name__.rpartition('.')[2]}-{name}-{kind}")


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Replaces the fixture of the folder."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.mark.parametrize(("test", "kind"), list(_tests()))
def test_the_contract_holds_on_a_redis_cluster(
    test: Callable[..., object], kind: str, request: pytest.FixtureRequest
) -> None:
    others = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters if name != "kind"}
    done = test(kind=kind, **others)
    if inspect.iscoroutine(done):
        asyncio.run(done)


def test_every_contract_has_tests_here() -> None:
    found = {test.id.partition("-")[0] for test in _tests()}  # type: ignore[attr-defined]
    assert found == {module.__name__.rpartition(".")[2] for module in KINDS}
