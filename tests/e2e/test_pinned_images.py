"""A pinned image in a cache of 16 MiB, which other images come into and leave, with a real registry."""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, CacheFolder
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.images import OCI_MANIFEST, Image, make_image
from tests.e2e.support.processes import session_pids, wait_until
from tests.e2e.support.push import push_image
from tests.e2e.support.service import Proxy, Serving, command, environment

pytestmark = pytest.mark.real("docker-registry")
NAME = "team/pinned"
SIZES = (2 * MIB, MIB)
_SEEDS = count()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path, tmp_path / "registry", "pins") as running:
        yield running


@dataclass(frozen=True)
class Pinning:
    """A mirror of two workers with a small cache, the registry behind it, and the commands for it."""

    proxy: Proxy
    registry: Registry
    settings: dict[str, str]

    @property
    def folder(self) -> CacheFolder:
        return CacheFolder(Path(self.settings["CACHE_DIR"]))

    def push(self, tag: str = "1") -> Image:
        """Push a new image to the registry."""
        image = make_image(f"pins-{next(_SEEDS)}", SIZES)
        push_image(self.registry.url, NAME, tag, image)
        return image

    def run(self, *words: str) -> tuple[int, str]:
        """Run a `cache` command: its status, and what it prints."""
        environ = environment(1, self.settings)
        done = subprocess.run(
            command("cache", *words), env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def holds(self, image: Image) -> bool:
        """Whether all of the image is in the folder."""
        return all(self.folder.file(one.digest).is_file() for one in (image.manifest, *image.blobs))

    def is_evicted(self, image: Image) -> bool:
        """Whether a layer of the image is not in the folder any more."""
        return any(not self.folder.file(one.digest).is_file() for one in image.layers)

    def pull_others(self, until: Callable[[], bool] = lambda: False, most: int = 10) -> list[Image]:
        """Clients pull new images, each a fifth of the cache. Returns them."""
        pulled = []
        while len(pulled) < most and not until():
            image = self.push(f"other-{random.random()}")  # noqa: S311 - a name
            for path in (f"manifests/{image.manifest.digest}", *(f"blobs/{one}" for one in image.blob_digests)):
                assert self.proxy.get(f"/v2/{NAME}/{path}", Accept=OCI_MANIFEST).status == 200
            assert wait_until(lambda: self.folder.content_size() <= 16 * MIB, 10)
            pulled.append(image)
        return pulled


@pytest.fixture
def pinning(serve: Serving, registry: Registry, tmp_path: Path) -> Iterator[Pinning]:
    (tmp_path / "cache").mkdir()
    settings = {
        **registry.settings,
        "CACHE_DIR": str(tmp_path / "cache"),
        "CACHE_SIZE": "16MiB",
        "TAG_TTL": "0",
        "PIN_CHECK_INTERVAL": "1",
    }
    with serve(**settings) as proxy:
        found = Pinning(proxy, registry, settings)
        yield found
    assert found.folder.wrong() == []


def test_a_pinned_image_stays_follows_its_tag_survives_a_crash_and_is_evictable_again(
    pinning: Pinning, serve: Serving
) -> None:
    first = pinning.push()
    status, said = pinning.run("pin", f"{NAME}:1")
    assert (status, pinning.holds(first)) == (0, True), said

    others = pinning.pull_others()
    assert any(map(pinning.is_evicted, others))
    assert pinning.holds(first)

    # The tag moves, and no client pulls it.
    second = pinning.push()
    assert wait_until(lambda: pinning.holds(second), 30)
    assert wait_until(lambda: second.manifest.digest[:19] in pinning.run("pins")[1], 30)
    pinning.pull_others(lambda: pinning.is_evicted(first), 20)
    assert pinning.is_evicted(first)
    assert pinning.holds(second)

    for process in session_pids(pinning.proxy.process.pid):
        os.kill(process, signal.SIGKILL)
    pinning.proxy.process.wait(10)
    with serve(**pinning.settings) as proxy:
        pinning = replace(pinning, proxy=proxy)
        status, said = pinning.run("pins")
        assert f"{NAME}:1" in said
        assert "complete" in said
        pinning.pull_others()
        assert pinning.holds(second)

        assert pinning.run("unpin", f"{NAME}:1")[0] == 0
        pinning.pull_others(lambda: pinning.is_evicted(second), 20)
        assert pinning.is_evicted(second)


def test_a_pinned_image_is_not_purged(pinning: Pinning) -> None:
    image = pinning.push()
    assert pinning.run("pin", f"{NAME}:1")[0] == 0
    status, said = pinning.run("purge", NAME)
    assert (status, "pinned" in said) == (1, True)
    assert pinning.holds(image)


def test_pinned_images_larger_than_the_cache_are_reported_and_the_mirror_goes_on(pinning: Pinning) -> None:
    images = {str(number): pinning.push(str(number)) for number in range(7)}
    fitting, others = list(images)[:5], list(images)[5:]
    for tag in fitting:
        status, _ = pinning.run("pin", f"{NAME}:{tag}")
        assert status or pinning.holds(images[tag])
    # The test pins the other two after that: when the pinned images together are larger than the cache, the mirror
    # fetches no more layers of those that are incomplete.
    assert wait_until(lambda: pinning.run("pins")[1].count(" complete") == 5, 30), pinning.run("pins")
    said = {tag: pinning.run("pin", f"{NAME}:{tag}") for tag in others}
    assert all(status == 1 and "raise CACHE_SIZE or unpin some" in shown for status, shown in said.values()), said
    assert [tag for tag, image in images.items() if pinning.holds(image)] == fitting
    assert pinning.folder.content_size() <= 16 * MIB
    assert wait_until(lambda: "the pinned images have" in pinning.proxy.process.tail(), 20)
    image = images["6"]
    for blob in image.blobs:
        assert pinning.proxy.get(f"/v2/{NAME}/blobs/{blob.digest}").body == blob.content
    metrics = pinning.proxy.get("/metrics").body.decode()
    [line] = [one for one in metrics.splitlines() if one.startswith("docker_image_proxy_cache_pinned_bytes ")]
    assert float(line.split()[1]) > 16 * MIB
