"""What the workers of two replicas agree on: who requests a new manifest, back-offs, and wrong logins."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import NAME, FaultyUpstream, Pulled, faulty_upstream, pull, pull_over
from tests.e2e.support.images import MANIFEST_TYPES, make_image
from tests.e2e.support.replicas import Replicas, replicas
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import account_entry, basic
from tests.e2e.support.valkey import Valkey

pytestmark = pytest.mark.real()

ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
MANIFESTS = f"/v2/{NAME}/manifests"
CLIENTS = 24


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "agreements-upstream") as running:
        yield running


def pull_everywhere(pair: Replicas, path: str) -> list[Pulled]:
    """The answers to clients that come at once to all workers of both replicas."""

    def one(number: int) -> Pulled:
        return pull(pair[number % 2].proxy.port, path, ACCEPT)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(one, range(CLIENTS)))


def requests(upstream: FaultyUpstream, since: int) -> Counter[str]:
    """How many requests for manifests the upstream got, by method."""
    return Counter(entry["method"] for entry in upstream.log(since) if "/manifests/" in entry["path"])


def test_a_new_tag_that_all_workers_of_two_replicas_want_costs_one_request(
    pair: Replicas, upstream: FaultyUpstream
) -> None:
    image = make_image("wanted by all", (100,))
    upstream.push(image, "wanted")
    upstream.control({"path": ".*/manifests/.*", "methods": ["GET", "HEAD"], "delay": 0.5})
    since = upstream.mark()
    answers = pull_everywhere(pair, f"{MANIFESTS}/wanted")
    assert {(answer.status, answer.body) for answer in answers} == {(200, image.manifest.content)}
    assert requests(upstream, since) == {"GET": 1}


def test_without_the_index_each_worker_requests_the_tag_and_no_client_waits_long(
    pair: Replicas, upstream: FaultyUpstream, index: Valkey
) -> None:
    image = make_image("wanted without an index", (100,))
    upstream.push(image, "alone")
    upstream.control({"path": ".*/manifests/.*", "delay": 0.5})
    since = upstream.mark()
    index.pause()
    try:
        answers = pull_everywhere(pair, f"{MANIFESTS}/alone")
    finally:
        index.resume()
    assert {(answer.status, answer.body) for answer in answers} == {(200, image.manifest.content)}
    assert requests(upstream, since)["GET"] <= 4


def test_a_429_that_one_replica_met_holds_at_the_other(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    image = make_image("throttled", (100,))
    upstream.push(image, "throttled")
    path = f"{MANIFESTS}/throttled"
    with replicas(serve, tmp_path, upstream, index, store, TAG_TTL="1") as pair:
        pull_everywhere(pair, path)
        assert pair.stores(image.manifest.digest)
        time.sleep(1.5)  # the cached tag is not fresh any more
        rule = {"path": ".*/manifests/.*", "methods": ["GET", "HEAD"], "status": 429, "retry_after": "60"}
        upstream.control(rule)
        since = upstream.mark()
        assert pull(pair[0].proxy.port, path, ACCEPT).status == 200
        assert requests(upstream, since).total() == 1
        time.sleep(4)  # the first replica has made the tag fresh for another second
        since = upstream.mark()
        answers = [pull(pair[1].proxy.port, path, ACCEPT) for _ in range(8)]
        upstream.control()
        assert {(answer.status, answer.body) for answer in answers} == {(200, image.manifest.content)}
        assert requests(upstream, since) == {}


def test_wrong_logins_at_both_replicas_are_counted_together(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    with replicas(serve, tmp_path, upstream, index, store, ACCOUNTS=account_entry("alice")) as pair:

        def guess(number: int) -> int:
            return pair[number % 2].proxy.ask_token("", basic("alice", f"guess {number}")).status

        with ThreadPoolExecutor(CLIENTS) as pool:
            statuses = Counter(pool.map(guess, range(CLIENTS)))
        assert set(statuses) == {401, 429}
        assert statuses[401] <= 8, "three at once, and then one after 1, 2 and 4 seconds; each may wait for 10"


def test_cached_content_costs_each_worker_one_request_to_the_index_in_five_seconds(
    pair: Replicas, upstream: FaultyUpstream, index: Valkey
) -> None:
    """Whatever the number of tags, manifests, blobs and callers is."""
    images = [make_image(f"cached {number}", (100, 200, 300)) for number in range(3)]
    for image in images:
        upstream.push(image, "cached")
    upstream.tag(**{f"cached-{number}": image.manifest.digest for number, image in enumerate(images)})
    paths = [f"{MANIFESTS}/cached-{number}" for number in range(len(images))]
    paths += [f"{MANIFESTS}/{image.manifest.digest}" for image in images]
    paths += [f"/v2/{NAME}/blobs/{blob.digest}" for image in images for blob in image.blobs]
    callers = [{}, {"Authorization": "Bearer one"}, {"Authorization": "Bearer other"}]
    with ExitStack() as stack:
        workers = [
            connection
            for replica in pair.running
            for connection in stack.enter_context(replica.proxy.connection_to_each_worker())
        ]

        def pull_all() -> None:
            for connection, caller, path in itertools.product(workers, callers, paths):
                assert pull_over(connection, path, ACCEPT | caller).status == 200

        end = time.monotonic() + 12  # until every worker knows what the others have learnt
        while time.monotonic() < end:
            pull_all()
        since = upstream.mark()
        index.command("CONFIG", "RESETSTAT")
        begun = time.monotonic()
        while time.monotonic() < begun + 12:
            pull_all()
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        asked = index.calls()
    assert upstream.log(since) == []
    assert 0 < asked["mget"] <= len(workers) * (seconds / 5 + 1)
    assert asked["hget"] == 0, "nothing has changed"
    assert asked["get"] == asked["set"], "only the script that reads the epoch uses both"
