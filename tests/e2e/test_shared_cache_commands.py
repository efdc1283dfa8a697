"""The `cache` commands with --shared, and `warm`, beside two replicas with one Valkey and one SeaweedFS."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, NAME, CacheFolder, FaultyUpstream, faulty_upstream
from tests.e2e.support.images import Image, make_image
from tests.e2e.support.processes import free_port, wait_until
from tests.e2e.support.replicas import (
    Replicas,
    digests,
    downloads,
    missing,
    objects_of,
    pull_image,
    replicas,
    run_command,
    shared_settings,
)
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import Serving
from tests.e2e.support.valkey import Valkey

pytestmark = pytest.mark.real()

SIZES = (100, 3 * MIB, 6 * MIB)
"""Blobs that are stored with their record, and in parts."""
ACTIONS = ["stats", "ls", "verify", "prune", f"purge {NAME}:commands"]


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "commands-upstream") as running_one:
        yield running_one


def elsewhere(found: Replicas, *words: str) -> tuple[int, str]:
    """The status and the output of a `cache` command on a machine that is no replica."""
    done = run_command(["cache", *words, "--shared"], found.folder / "no such folder", found.upstream, found.settings)
    assert not (found.folder / "no such folder").exists()
    assert done.stderr == ""
    return done.returncode, done.stdout


def pulled_by_both(found: Replicas, name: str) -> Image:
    """An image that both replicas have pulled and that is in the store, with the tag `commands`."""
    image = make_image(name, SIZES)
    found.upstream.push(image, "commands")
    for replica in found.running:
        pull_image(replica, image, "commands")
    assert found.stores(*digests(image))
    return image


def parts_of(found: Replicas, digest: str) -> list[str]:
    """The names of the objects with the parts of the blob."""
    algorithm, _, encoded = digest.partition(":")
    folder = f"parts/{algorithm}/{encoded[:2]}/{encoded}"
    return [str(each["path"]) for page in found.objects.list(folder) for each in page]


def test_an_image_is_listed_as_whole(pair: Replicas) -> None:
    image = pulled_by_both(pair, "listed")
    status, listed = elsewhere(pair, "ls")
    [heading, row] = listed.splitlines()
    assert (status, heading.split()) == (0, ["IMAGE", "DIGEST", "SHARED", "SIZE", "CHECKED"])
    size = f"{sum(map(len, [image.manifest.content, *(blob.content for blob in image.blobs)])) / 1e6:.1f} MB"
    assert row.split("  ")[0].strip() == f"{NAME}:commands"
    assert re.findall(r"[0-9.]+ MB", row) == [size, size]
    status, shown = elsewhere(pair, "stats")
    assert status == 0
    assert re.search(rf"content +{len(digests(image))} manifests and blobs, {size} *\n", shown)
    assert re.search(rf"store +{pair.settings['SHARED_STORE']} *\n", shown)
    assert re.search(r"unfinished downloads +0 bytes *\n", shown)
    assert re.search(r"tags +1 *\n", shown)


def test_a_flipped_bit_in_the_store_is_found_and_a_client_gets_the_right_bytes(pair: Replicas) -> None:
    image = pulled_by_both(pair, "flipped")
    assert elsewhere(pair, "verify") == (0, f"{len(digests(image))} intact, 0 damaged\n")
    blob = image.blobs[-1]
    part = parts_of(pair, blob.digest)[1]
    content = bytearray(pair.objects.get(part).bytes())
    content[len(content) // 2] ^= 1
    pair.objects.put(part, bytes(content))
    status, said = elsewhere(pair, "verify")
    assert (status, said.splitlines()) == (
        1,
        [f"damaged, removed: {blob.digest}", f"{len(digests(image)) - 1} intact, 1 damaged"],
    )
    assert (missing(pair.objects, *digests(image)), parts_of(pair, blob.digest)) == ([blob.digest], [])
    since = pair.upstream.mark()
    pull_image(pair.start(), image, "commands")
    assert downloads(pair.upstream, since) == [f"/v2/{NAME}/blobs/{blob.digest}"]
    assert pair.stores(blob.digest), "healed"
    assert elsewhere(pair, "verify")[0] == 0


def test_a_purged_image_leaves_the_store_and_this_replica_and_is_fetched_again(pair: Replicas) -> None:
    image = pulled_by_both(pair, "purged")
    first, second = pair.running
    done = run_command(
        ["cache", "purge", "--shared", f"{NAME}:commands"], first.cache.path, pair.upstream, pair.settings
    )
    assert (done.returncode, done.stderr) == (0, "")
    *removed, summary = done.stdout.splitlines()
    count = len(digests(image))
    assert sorted(removed) == sorted(digests(image))
    assert summary.startswith(f"{count} removed from the shared store, {count} from this machine; ")
    assert sorted(missing(pair.objects, *digests(image))) == sorted(digests(image))
    assert [parts_of(pair, digest) for digest in digests(image)] == [[]] * count
    assert not any(first.cache.file(digest).exists() for digest in digests(image))
    assert all(second.cache.file(blob.digest).exists() for blob in image.blobs), "the other replica keeps its files"
    status, said = elsewhere(pair, "ls")
    assert (status, len(said.splitlines())) == (0, 1), "no tag is left"
    since = pair.upstream.mark()
    assert wait_until(lambda: refetched(pair, image, since), 20, pause=1)
    assert pair.stores(*digests(image))


def refetched(found: Replicas, image: Image, since: int) -> bool:
    """Whether pulls have made the upstream send everything. Workers remember manifests for some seconds."""
    pull_image(found[0], image, "commands")
    wanted = {f"/v2/{NAME}/manifests/commands", *(f"/v2/{NAME}/blobs/{blob.digest}" for blob in image.blobs)}
    return wanted <= set(downloads(found.upstream, since))


def test_what_no_replica_uses_is_pruned(pair: Replicas) -> None:
    image = pulled_by_both(pair, "pruned")
    assert elsewhere(pair, "prune", "--older-than", "1") == (0, "0 removed, 0 bytes\n")
    assert missing(pair.objects, *digests(image)) == []
    status, said = elsewhere(pair, "prune", "--older-than", "0")
    assert (status, said.split(",")[0]) == (0, f"{len(digests(image))} removed")
    assert sorted(missing(pair.objects, *digests(image))) == sorted(digests(image))
    assert all(parts_of(pair, digest) == [] for digest in digests(image))


def test_an_image_that_is_pinned_on_one_replica_is_pinned_on_all(pair: Replicas) -> None:
    image, other = pulled_by_both(pair, "pinned"), make_image("other", SIZES)
    first, second = (replica.cache.path for replica in pair.running)

    def command(folder: Path, *words: str) -> tuple[int, str]:
        done = run_command(["cache", *words], folder, pair.upstream, pair.settings)
        return done.returncode, done.stdout + done.stderr

    status, said = command(first, "pin", f"{NAME}:commands")
    assert (status, image.manifest.digest in said) == (0, True), said
    status, said = command(second, "pins")
    assert (status, [line.split()[-1] for line in said.splitlines()]) == (0, ["STATE", "complete"])
    pair.upstream.push(other, "other")
    pull_image(pair[0], other, "other")
    assert pair.stores(*digests(other))
    for words in (["purge", "--shared"], ["purge"]):
        status, said = command(second, *words, f"{NAME}:commands")
        assert status == 1
        assert f"{NAME}:commands is pinned and cannot be purged; unpin it first" in said
    status, said = elsewhere(pair, "prune", "--older-than", "0")
    assert missing(pair.objects, *digests(image)) == []
    assert missing(pair.objects, *digests(other)) != []
    assert command(second, "prune", "--older-than", "0")[0] == 0
    assert all(pair[1].cache.file(digest).exists() for digest in digests(image))
    assert command(second, "unpin", f"{NAME}:commands")[0] == 0
    assert command(first, "pins")[1].split()[-1] == "STATE"
    assert command(first, "purge", "--shared", f"{NAME}:commands")[0] == 0
    assert sorted(missing(pair.objects, *digests(image))) == sorted(digests(image))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", ["SHARED_STORE", "SHARED_INDEX"])
def test_a_service_that_refuses_connections_is_named_in_one_line(
    name: str, action: str, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    settings = {**shared_settings(index, store), **address(name, free_port())}
    done = run_command(["cache", *action.split(), "--shared"], tmp_path, upstream, settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"docker-image-proxy: {name}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["SHARED_STORE", "SHARED_INDEX"])
def test_a_service_that_is_silent_is_named_in_one_line(
    name: str, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {**shared_settings(index, store), **address(name, silent.getsockname()[1])}
        done = run_command(["cache", "verify", "--shared"], tmp_path, upstream, settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"docker-image-proxy: {name}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("action", ["prune", f"purge {NAME}:commands"])
def test_a_command_for_one_machine_says_if_the_other_replicas_were_not_told(
    action: str, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    settings = {**shared_settings(index, store), **address("SHARED_INDEX", free_port())}
    done = run_command(["cache", *action.split()], tmp_path, upstream, settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert "docker-image-proxy: the other replicas were not told: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verification_says_if_the_other_replicas_were_not_told_of_what_it_has_removed(
    tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    settings = {**shared_settings(index, store), **address("SHARED_INDEX", free_port())}
    digest = f"sha256:{'0' * 64}"
    damaged = CacheFolder(tmp_path).file(digest)
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    run_command(["cache", "prune"], tmp_path, upstream, settings)  # lists the file in the index
    done = run_command(["cache", "verify"], tmp_path, upstream, settings)
    assert (done.returncode, done.stdout) == (1, f"damaged, removed: {digest}\n")
    assert "docker-image-proxy: the other replicas were not told: " in done.stderr
    assert "Traceback" not in done.stderr


def address(name: str, port: int) -> dict[str, str]:
    """The variable with the address of the service."""
    if name == "SHARED_STORE":
        return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    return {"SHARED_INDEX": f"redis://127.0.0.1:{port}"}


# --- warm ---


def test_warm_ends_when_all_replicas_can_have_the_image(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    image = make_image("warm", SIZES)
    upstream.push(image, "warm")
    with replicas(serve, tmp_path, upstream, index, store, count=1) as found:
        done = run_command(["warm", f"{NAME}:warm"], tmp_path / "warm", upstream, found.settings)
        assert done.returncode == 0, done.stderr
        assert missing(found.objects, *digests(image)) == []
        since = upstream.mark()
        pull_image(found[0], image, "warm")
        assert [path for path in downloads(upstream, since) if "/blobs/" in path] == []


def test_warm_fetches_nothing_that_another_replica_has_stored(pair: Replicas) -> None:
    pulled_by_both(pair, "already stored")
    since = pair.upstream.mark()
    done = run_command(["warm", f"{NAME}:commands"], pair.folder / "warm", pair.upstream, pair.settings)
    assert (done.returncode, downloads(pair.upstream, since)) == (0, [])


def test_warm_uploads_what_only_the_folder_of_this_machine_has(
    tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> None:
    image = make_image("only here", SIZES)
    upstream.push(image, "here")
    settings = shared_settings(index, store)
    away = {**settings, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    assert run_command(["warm", f"{NAME}:here"], tmp_path, upstream, away).returncode == 0
    objects, since = objects_of(settings), upstream.mark()
    assert missing(objects, *digests(image)) == digests(image)
    assert run_command(["warm", f"{NAME}:here"], tmp_path, upstream, settings).returncode == 0
    assert missing(objects, *digests(image)) == []
    assert [path for path in downloads(upstream, since) if "/blobs/" in path] == []
    # All of it is right: another machine gets it without the upstream.
    assert run_command(["warm", f"{NAME}:here"], tmp_path / "other", upstream, settings).returncode == 0
    assert [path for path in downloads(upstream, since) if "/blobs/" in path] == []


def test_warm_ends_without_the_store(tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS) -> None:
    image = make_image("warm without a store", SIZES)
    upstream.push(image, "alone")
    settings = shared_settings(index, store)
    away = {**settings, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    done = run_command(["warm", f"{NAME}:alone"], tmp_path, upstream, away)
    assert done.returncode == 0
    assert missing(objects_of(settings), *digests(image)) == digests(image)
