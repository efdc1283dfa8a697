"""Pulls of a blob from an upstream that limits each connection, so that the mirror fetches it over several ones."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from adapters.storage.present_map import read_map
from domain.span_set import SpanSet
from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, Made, Pulled, pull_over

SIZE = 16 * MIB
RATE = 4 * MIB
"""Bytes per second of each connection. One connection needs so long for a blob that a second one is worthwhile."""


def limited(made: Made, *faults: dict[str, Any]) -> list[dict[str, Any]]:
    """Rules that limit the rate of each connection. Requests for parts get answers with the first of these faults that
    applies.

    The first answer ends early, so that there is another request if the download continues over this connection alone.
    """
    blob = {"path": made.digest, "rate": RATE}
    parts = [{**blob, "ranged": True, **fault} for fault in faults]
    return [*parts, {**blob, "ranged": False, "cut_after": SIZE // 2, "times": 1}, {**blob, "rate": 4 * RATE}]


@contextmanager
def pulling(service: Cached, made: Made, workers: int = 2) -> Iterator[list[Future[Pulled]]]:
    """One client of each worker pulls the blob: one worker fetches it, the others follow. The clients begin before the
    context, which ends after they have ended.
    """
    with service.proxy.connection_to_each_worker(workers) as connections, ThreadPoolExecutor() as pool:
        yield [pool.submit(pull_over, connection, made.path) for connection in connections]


def are_right(clients: list[Future[Pulled]], made: Made) -> bool:
    """Whether each client received the complete blob."""
    pulled = [client.result() for client in clients]
    return [(one.status, one.whole, one.body == made.content) for one in pulled] == [(200, True, True)] * len(clients)


def sent(upstream: FaultyUpstream, made: Made) -> int:
    """The bytes of this blob that the upstream has sent."""
    return sum(entry["sent"] for entry in upstream.gets(made.path))


def parts(upstream: FaultyUpstream, made: Made) -> list[dict[str, Any]]:
    """The log entries of the requests for parts of the blob."""
    return [entry for entry in upstream.gets(made.path) if entry["range"]]


def present(service: Cached, made: Made) -> SpanSet:
    """The bytes in the partial blob. Empty if it has no gaps, and so no map."""
    (draft,) = (service.cache.path / "drafts").glob(f"*{made.digest.partition(':')[2]}*")
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        content = read_map(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    return content.present if content else SpanSet()
