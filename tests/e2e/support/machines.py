"""A service of two replicas, in place of one process group: a test that passes with one must pass with both."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.support.plain_http import UpstreamResponse
from tests.e2e.support.replicas import tier_settings
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.valkey import Valkey, valkey

KINDS = ("one machine", "two replicas", "two replicas without Valkey")
MACHINES = pytest.mark.parametrize("machines", KINDS)


@dataclass
class ReplicatedProxy(Proxy):
    """The first replica, and the others behind the same load balancer. Requests go to all of them in turn; only what a
    test sends to `url` or `port` itself reaches the first one alone.
    """

    others: list[Proxy] = field(default_factory=list)
    index: Valkey | None = None

    def __post_init__(self) -> None:
        self._turns = itertools.cycle([None, *self.others])

    def request(self, method: str, path: str, authorization: str | None = None, **headers: str) -> UpstreamResponse:
        other = next(self._turns)
        if other:
            return other.request(method, path, authorization, **headers)
        return super().request(method, path, authorization, **headers)

    @contextmanager
    def connection_to_each_worker(self, workers: int = 2) -> Iterator[list[HTTPConnection]]:
        """One open connection to each worker of each replica. `workers`: those of one replica."""
        with ExitStack() as stack:
            own = stack.enter_context(super().connection_to_each_worker(workers))
            found = [stack.enter_context(other.connection_to_each_worker(workers)) for other in self.others]
            yield [*own, *itertools.chain(*found)]


def lose_index(machines: str, proxy: Proxy) -> None:
    """Kill Valkey, if this one of KINDS says so. Called when the cache is warm."""
    if machines == "two replicas without Valkey":
        assert isinstance(proxy, ReplicatedProxy)
        assert proxy.index
        proxy.index.kill()


def on(machines: str, serve: Serving, folder: Path) -> Serving:
    """Like `serve`, but with as many machines as this one of KINDS says."""
    if machines == "one machine":
        return serve

    @contextmanager
    def serve_replicas(**settings: str) -> Iterator[ReplicatedProxy]:
        number = len(list(folder.glob("replicas-*")))
        shared = folder / f"replicas-{number}"
        store = shared / "store"
        store.mkdir(parents=True)
        with valkey(shared) as index, ExitStack() as stack:
            settings |= tier_settings(store.as_uri(), index.url)
            first = stack.enter_context(serve(**settings))
            cache = {"CACHE_DIR": str(shared / "cache")}  # the first has the folder that the test names
            second = stack.enter_context(serve(**settings | cache))
            yield ReplicatedProxy(first.process, first.port, first.tls, [second], index)

    return serve_replicas
