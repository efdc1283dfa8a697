"""Replicas of one mirror: services with processes and folders of their own, beside one Valkey and one shared store."""

import itertools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from obstore.store import S3Store
from redis import Redis

from tests.e2e.support.cached_mirror import NAME, Cached, FaultyUpstream, cached, pull
from tests.e2e.support.images import MANIFEST_TYPES, Image
from tests.e2e.support.processes import wait_until
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import SECRET, Serving, command, environment
from tests.e2e.support.valkey import Valkey

ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
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

    @property
    def objects(self) -> S3Store:
        """The shared store."""
        return objects_of(self.settings)

    def stores(self, *digests: str) -> bool:
        """Wait until the shared store has all of the content, so that another replica needs no download."""
        return wait_until(lambda: not missing(self.objects, *digests), 20, pause=0.1)

    def start(self, **settings: str) -> Cached:
        """Start another replica with an empty folder. `settings`: its own, for instance the address of a gate."""
        folder = self.folder / f"replica-{len(self.running)}"
        replica = self.stack.enter_context(cached(self.serve, self.upstream, folder, **{**self.settings, **settings}))
        self.running.append(replica)
        return replica


def objects_of(settings: Mapping[str, str]) -> S3Store:
    """The shared store of replicas with these settings."""
    variables = {name.lower(): value for name, value in settings.items() if name.startswith("AWS_")}
    bucket, _, prefix = settings["SHARED_STORE"].removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix=prefix, config=cast("Any", variables))


def missing(store: S3Store, *digests: str) -> list[str]:
    """Those of the digests whose content is not in the store."""

    def has(digest: str) -> bool:
        algorithm, _, encoded = digest.partition(":")
        try:
            store.head(f"content/{algorithm}/{encoded[:2]}/{encoded}")
        except FileNotFoundError:
            return False
        return True

    return [digest for digest in digests if not has(digest)]


def digests(image: Image) -> list[str]:
    """The digests of all content of the image."""
    return [image.manifest.digest, *(blob.digest for blob in image.blobs)]


def pull_image(replica: Cached, image: Image, tag: str) -> None:
    """Pull all of the image, as a client does. Fails if anything is missing or wrong."""
    manifest = pull(replica.proxy.port, f"/v2/{NAME}/manifests/{tag}", ACCEPT)
    assert (manifest.status, manifest.body) == (200, image.manifest.content)
    for blob in image.blobs:
        pulled = pull(replica.proxy.port, f"/v2/{NAME}/blobs/{blob.digest}")
        assert (pulled.status, pulled.whole, pulled.body == blob.content) == (200, True, True)


def downloads(upstream: FaultyUpstream, since: int) -> list[str]:
    """The paths of the manifests and blobs that the upstream has sent."""
    return [entry["path"] for entry in upstream.log(since) if entry["method"] == "GET" and entry["path"] != "/v2/"]


def run_command(
    words: Sequence[str], folder: Path, upstream: FaultyUpstream, settings: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command of the program with this cache folder."""
    environ = environment(1, {"CACHE_DIR": str(folder), "UPSTREAM_REGISTRY": upstream.url, **settings})
    return subprocess.run(command(*words), env=environ, capture_output=True, text=True, timeout=60, check=False)


def age_pins(index: Valkey, settings: Mapping[str, str]) -> None:
    """Commands that remove shared content need not wait until replicas have written their pins to the new index."""
    with closing(Redis(port=index.port, db=int(settings["SHARED_INDEX"].rpartition("/")[2]))) as client:
        client.hset("dip:1:pins:{all}", "", 0)


def tier_settings(store: str, index: str) -> dict[str, str]:
    """The settings of replicas with the shared store and the shared index at these addresses."""
    return {"SHARED_STORE": store, "SHARED_INDEX": index, "SERVER_SECRET": SECRET}


def shared_settings(index: Valkey, store: SeaweedFS) -> dict[str, str]:
    """The settings of replicas that share nothing with the replicas of other tests, which may use the same servers: a
    database of the index and a prefix of the store.
    """
    number = next(_NUMBERS)
    assert number < _DATABASES, "more mirrors than databases"
    return tier_settings(f"{store.url}/mirror-{number}", f"{index.url}/{number}") | store.environment


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
        age_pins(index, found.settings)
        for _ in range(count):
            found.start()
        yield found
