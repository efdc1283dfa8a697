"""Replicas of one mirror: services with processes and folders of their own, beside one Valkey and one shared store."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from obstore.store import S3Store

from tests.e2e.support.cached_mirror import Cached, FaultyUpstream, cached
from tests.e2e.support.processes import wait_until
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import SECRET, Serving
from tests.e2e.support.valkey import Valkey

_DATABASES = 256
_NUMBERS = itertools.count()
VALKEY_OPTIONS = ("--databases", str(_DATABASES))
"""The options of a Valkey server that several tests use."""


@dataclass
class Replicas:
    """A mirror whose replicas start one after the other. `settings` are those of every replica."""

    serve: Serving
    folder: Path
    upstream: FaultyUpstream
    settings: Mapping[str, str]
    running: list[Cached]
    stack: ExitStack

    def __getitem__(self, number: int) -> Cached:
        return self.running[number]

    def stores(self, *digests: str) -> bool:
        """Wait until the shared store has all of the content, so that another replica needs no download."""
        variables = {name.lower(): value for name, value in self.settings.items() if name.startswith("AWS_")}
        bucket, _, prefix = self.settings["SHARED_STORE"].removeprefix("s3://").partition("/")
        store = S3Store(bucket, prefix=prefix, config=cast("Any", variables))

        def has(digest: str) -> bool:
            algorithm, _, encoded = digest.partition(":")
            try:
                store.head(f"content/{algorithm}/{encoded[:2]}/{encoded}")
            except FileNotFoundError:
                return False
            return True

        return wait_until(lambda: all(map(has, digests)), 20, pause=0.1)

    def start(self, **settings: str) -> Cached:
        """Start another replica with an empty folder. `settings`: its own, for instance the address of a gate."""
        folder = self.folder / f"replica-{len(self.running)}"
        replica = self.stack.enter_context(cached(self.serve, self.upstream, folder, **{**self.settings, **settings}))
        self.running.append(replica)
        return replica


def shared_settings(index: Valkey, store: SeaweedFS) -> dict[str, str]:
    """The settings of replicas that share nothing with the replicas of other tests, which may use the same servers: a
    database of the index and a prefix of the store.
    """
    number = next(_NUMBERS)
    assert number < _DATABASES, "more mirrors than databases"
    return {
        "SHARED_STORE": f"{store.url}/mirror-{number}",
        "SHARED_INDEX": f"{index.url}/{number}",
        "SERVER_SECRET": SECRET,
        **store.environment,
    }


@contextmanager
def replicas(
    serve: Serving,
    folder: Path,
    upstream: FaultyUpstream,
    index: Valkey,
    store: SeaweedFS,
    count: int = 2,
    **settings: str,
) -> Iterator[Replicas]:
    """`count` running replicas. `folder`: below it each replica has its cache."""
    with ExitStack() as stack:
        found = Replicas(serve, folder, upstream, {**shared_settings(index, store), **settings}, [], stack)
        for _ in range(count):
            found.start()
        yield found
