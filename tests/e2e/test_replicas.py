"""Two replicas with one Valkey and one SeaweedFS: what one has pulled, the other one serves; what operators see."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, faulty_upstream, settle
from tests.e2e.support.images import make_image
from tests.e2e.support.processes import wait_until
from tests.e2e.support.replicas import (
    VALKEY_OPTIONS,
    Replicas,
    digests,
    downloads,
    pull_image,
    replicas,
    run_command,
    shared_settings,
)
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import Serving
from tests.e2e.support.timed_clients import TimedClient
from tests.e2e.support.valkey import Valkey, valkey

pytestmark = pytest.mark.real()

SIZES = (100, 3 * MIB, 6 * MIB)
"""Blobs that are stored with their record, and in parts."""
STORE_REQUESTS = re.compile(
    r'^docker_image_proxy_shared_store_requests_total\{operation="(\w+)".*\} ([0-9.e+]+)$', re.MULTILINE
)


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "replicas-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def pair(
    serve: Serving,
    tmp_path_factory: pytest.TempPathFactory,
    upstream: FaultyUpstream,
    index: Valkey,
    store: SeaweedFS,
) -> Iterator[Replicas]:
    with replicas(serve, tmp_path_factory.mktemp("replicas"), upstream, index, store) as found:
        yield found
    assert [replica.cache.wrong() for replica in found.running] == [[]] * len(found.running)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as running:
        yield running


def test_an_image_that_one_replica_has_pulled_is_not_downloaded_again_by_another(
    pair: Replicas, upstream: FaultyUpstream
) -> None:
    image = make_image("shared", SIZES)
    upstream.push(image, "shared")
    first, second = pair.running
    before = first.counted("shared_bytes_stored_total") / 2
    pull_image(first, image, "shared")
    assert pair.stores(*digests(image))
    since = upstream.mark()
    pull_image(second, image, "shared")
    assert [entry for entry in upstream.log(since) if entry["path"] != "/v2/"] == [], "not even a HEAD"
    size = len(image.manifest.content) + sum(len(blob.content) for blob in image.blobs)
    assert first.counted("shared_bytes_stored_total") / 2 == before + size
    assert second.counted("shared_bytes_received_total") / 2 == size


def test_a_cluster_with_an_empty_index_downloads_nothing_that_is_in_the_store(
    pair: Replicas, upstream: FaultyUpstream, index: Valkey
) -> None:
    image = make_image("handed over", SIZES)
    upstream.push(image, "handed")
    pull_image(pair[0], image, "handed")
    assert pair.stores(*digests(image))
    since = upstream.mark()
    index.flush()
    pull_image(pair.start(), image, "handed")
    assert [path for path in downloads(upstream, since) if "/blobs/" in path] == []


def test_a_follower_sends_its_first_byte_soon_after_the_leader(
    pair: Replicas, upstream: FaultyUpstream, pool: ThreadPoolExecutor
) -> None:
    """With an upstream of 20 MiB/s. The median, because other programs delay single answers."""

    def later() -> float:
        made = upstream.blob(6 * MIB)
        upstream.control({"path": made.digest, "rate": 20 * MIB})
        clients = [TimedClient(replica, made, pool) for replica in pair.running[:2]]
        assert all(client.is_right() for client in clients)
        first, second = sorted(client.arrivals[0][0] for client in clients)
        return second - first

    assert statistics.median(later() for _ in range(7)) < 0.15


def store_requests(replica: Cached) -> Counter[str]:
    """The requests of the replica to the shared store, by operation. Only the upkeep lists objects."""
    found = STORE_REQUESTS.findall(replica.proxy.get("/metrics").body.decode())
    requests = Counter[str]()
    for operation, count in found:
        requests[operation] += int(float(count))
    del requests["list"]
    return requests


@pytest.mark.parametrize("size", [100, 24 * MIB])
def test_a_cold_blob_costs_the_store_two_requests_beside_its_upload_and_a_warm_one_none(
    pair: Replicas, upstream: FaultyUpstream, size: int
) -> None:
    first, second = pair.running[:2]
    made, before = upstream.blob(size), store_requests(first)
    assert first.gives(made)
    assert pair.stores(made.digest)
    settle()
    cold = store_requests(first)
    asked = cold - before
    assert asked.total() - asked["put"] <= 2, asked
    assert second.gives(made)
    assert all(one.cache.holds(made) for one in (first, second))
    warm = store_requests(second)
    for _ in range(8):
        assert first.gives(made)
        assert second.gives(made)
    assert (store_requests(first), store_requests(second)) == (cold, warm)


# --- what operators see ---


def services(replica: Cached) -> dict[str, Any]:
    """What /readyz says of the shared store and the shared index."""
    answer = replica.proxy.get("/readyz")
    assert answer.status == 200
    return {entry["setting"]: entry for entry in answer.json()["shared"]}


def gauges(replica: Cached) -> tuple[float, float]:
    names = ("shared_store_available", "shared_index_available")
    store, index = (replica.counted(name) / 2 for name in names)
    return store, index


def test_start_line_readiness_and_metrics_name_store_and_index(pair: Replicas, index: Valkey, store: SeaweedFS) -> None:
    address = f"127.0.0.1:{index.port}"
    [line] = [line for line in pair[0].proxy.process.log_lines() if " mirrors " in line]
    assert f", shared in {store.url}/mirror-" in line
    assert f" and {address}; point docker at it" in line
    found = services(pair[0])
    assert found["SHARED_STORE"]["address"].startswith(f"{store.url}/")
    assert found["SHARED_INDEX"] == {
        "setting": "SHARED_INDEX",
        "address": address,
        "available": True,
        "reason": None,
    }
    assert gauges(pair[0]) == (1, 1)


def test_a_lost_index_is_reported_and_the_replica_stays_ready(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, store: SeaweedFS
) -> None:
    def pulls_new_blob() -> bool:
        return alone.gives(upstream.blob(100))

    with (
        valkey(tmp_path, *VALKEY_OPTIONS) as index,
        replicas(serve, tmp_path, upstream, index, store, count=1, WORKERS="1") as found,
    ):
        alone = found[0]
        assert pulls_new_blob()
        index.kill()
        assert pulls_new_blob()
        assert not services(alone)["SHARED_INDEX"]["available"]
        assert "cannot be reached" in services(alone)["SHARED_INDEX"]["reason"]
        assert services(alone)["SHARED_STORE"]["available"]
        assert alone.counted("shared_index_available", workers=1) == 0
        index.restart()
        assert wait_until(lambda: pulls_new_blob() and services(alone)["SHARED_INDEX"]["available"], 20, pause=0.5)
        assert alone.counted("shared_index_available", workers=1) == 1
        complaints = "\n".join(alone.complaints())
        assert complaints.count("SHARED_INDEX: ") == 2
        assert f"SHARED_INDEX: 127.0.0.1:{index.port} answers again" in complaints


@pytest.mark.parametrize("name", ["doctor", "check-config"])
def test_commands_examine_store_and_index(
    name: str, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    settings = shared_settings(index, store)
    folder = tmp_path / "cache"
    done = run_command([name], folder, upstream, settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert folder.exists() == (name == "doctor"), "check-config writes nothing"
    assert f"ok: SHARED_STORE: {settings['SHARED_STORE']}: objects can be written, read, listed and deleted" in (
        done.stdout.splitlines()
    )
    assert f"ok: SHARED_INDEX: 127.0.0.1:{index.port}: Valkey 9" in done.stdout


@pytest.mark.parametrize("name", ["doctor", "check-config"])
def test_commands_say_what_is_wrong_with_store_and_index(
    name: str, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    wrong = {"SHARED_INDEX": f"redis://:hunter2@127.0.0.1:{index.port}", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    done = run_command([name], tmp_path, upstream, shared_settings(index, store) | wrong)
    assert done.returncode == 1
    assert "error: SHARED_STORE: " in done.stdout
    assert f"error: SHARED_INDEX: 127.0.0.1:{index.port}: rejected the user name or the password; " in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_full_index_that_removes_nothing_is_a_warning(
    tmp_path: Path, upstream: FaultyUpstream, store: SeaweedFS
) -> None:
    with valkey(tmp_path, *VALKEY_OPTIONS, "--maxmemory", "64mb") as index:
        done = run_command(["check-config"], tmp_path / "cache", upstream, shared_settings(index, store))
    assert done.returncode == 0
    assert f"warning: SHARED_INDEX: 127.0.0.1:{index.port}: its memory is limited, and its maxmemory-policy is " in (
        done.stdout
    )


@pytest.mark.parametrize("name", ["serve", "check-config"])
def test_a_store_that_cannot_be_opened_ends_the_start(
    name: str, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    settings = shared_settings(index, store) | {"SHARED_STORE": "az://images"}  # whose account is not set
    done = run_command([name], tmp_path, upstream, settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("docker-image-proxy: SHARED_STORE: got 'az://images', which cannot be opened (")
    assert done.stderr.count("\n") == 1


def test_replicas_begin_and_end_to_share_at_a_reload(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    settings = shared_settings(index, store)
    shared = {name.lower(): settings.pop(name) for name in ("SHARED_STORE", "SHARED_INDEX")}
    (file := tmp_path / "mirror.toml").write_text(f'upstream_registry = "{upstream.url}"\n')
    alone = file.read_text()
    with serve(CONFIG=str(file), **settings) as proxy:
        assert "shared" not in proxy.get("/readyz").json()
        file.write_text(alone + "".join(f'{name} = "{value}"\n' for name, value in shared.items()))
        assert "SHARED_INDEX, SHARED_STORE" in "".join(proxy.reload())
        assert [entry["available"] for entry in proxy.get("/readyz").json()["shared"]] == [True, True]
        assert "\ndocker_image_proxy_shared_store_available 1.0" in proxy.get("/metrics").body.decode()
        file.write_text(file.read_text().replace(shared["shared_store"], "az://images"))
        [line] = proxy.reload()
        assert "settings not reloaded, the old ones stay in force: SHARED_STORE: got 'az://images'" in line
        file.write_text(alone)
        assert "SHARED_INDEX, SHARED_STORE" in "".join(proxy.reload())
        assert "shared" not in proxy.get("/readyz").json()
        assert "\ndocker_image_proxy_shared_store_available" not in proxy.get("/metrics").body.decode()
