"""Writes the screenshots of the page. `scripts/screenshots` runs it."""

import asyncio
import gzip
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import bcrypt
from playwright.sync_api import Browser

from adapters.clock import SystemClock
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_history import SqliteHistoryArchive
from adapters.storage.sqlite_schema import HISTORY
from domain.history import DURATION_BOUNDS, RESOLUTIONS, Bucket, Totals
from tests.e2e.support.browser import NARROW, WIDE, Tab, chromium, tab
from tests.e2e.support.cached_mirror import faulty_upstream
from tests.e2e.support.docker_registry import docker_registry
from tests.e2e.support.draining_clients import Drain
from tests.e2e.support.images import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, OCI_INDEX, Blob
from tests.e2e.support.push import push_blob, push_manifest
from tests.e2e.support.service import Proxy, serving

FOLDER = Path(__file__).with_name("screenshots")
_LONGEST = 1600
"""Pixels of a screenshot's height."""
_STEPS = (
    "/bin/sh -c #(nop) ADD file:4b4b2b8d21f1c2a0 in / ",
    "/bin/sh -c set -x && groupadd --system --gid 101 {name} && useradd --system --gid {name} --uid 101 {name}",
    "/bin/sh -c apt-get update && apt-get install --no-install-recommends -y ca-certificates gettext-base",
    "COPY docker-entrypoint.sh / # buildkit",
)
_OPERATOR = {"username": "olga", "password": "olga-pass"}
_HASH = bcrypt.hashpw(_OPERATOR["password"].encode(), bcrypt.gensalt(4)).decode()
_PINNED = (
    ("docker.io/library/nginx:latest", ""),
    ("docker.io/library/postgres:17", "linux/amd64 linux/arm64"),
    ("quay.io/team/deleted:1", ""),
)
"""Images and their platforms."""
_SIZES = (1_292_000, 310_000, 41_000, 460)
_IMAGES = {
    "docker.io": {
        "library/nginx": ("1.27", "1.27-alpine", "latest"),
        "library/redis": ("7", "8", "8.2-alpine"),
        "library/postgres": ("16", "17"),
        "library/python": ("3.13", "3.13-slim", "3.14", "3.14-slim"),
        "grafana/grafana": ("12.2.0",),
        "bitnami/kubectl": ("1.34",),
    },
    "quay.io": {"prometheus/prometheus": ("v3.7.1",), "prometheus/node-exporter": ("v1.10.0",)},
}
_RATES = {"docker.io": 1_400_000, "quay.io": 600_000}
"""Bytes per second of one connection to a slow registry."""
_DOWNLOADS = (
    ("docker.io", "library/postgres", 240_000_000, 3),
    ("docker.io", "library/python", 160_000_000, 1),
    ("quay.io", "prometheus/prometheus", 64_000_000, 2),
)
"""The registry, the repository, the bytes of the layer, and the readers."""
_DOWNLOADED_SECONDS = 9.0


def _print(document: object) -> bytes:
    return json.dumps(document).encode()


def _image(name: str, tag: str, architecture: str) -> tuple[list[Blob], Blob]:
    """The blobs and the manifest of an image, with small layers."""
    short = name.rpartition("/")[2]
    layers = []
    for number, size in enumerate(_SIZES):
        seed = f"base {architecture}" if number == 0 else f"{name} {tag} {architecture} {number}"
        content = random.Random(seed).randbytes(size)  # noqa: S311 - not a secret
        layers.append(Blob(gzip.compress(content, compresslevel=1, mtime=0), DOCKER_LAYER))
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-11-24T08:14:03Z",
        "config": {
            "Entrypoint": ["/docker-entrypoint.sh"],
            "Cmd": [short, "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                f"{short.upper()}_VERSION={tag}",
            ],
            "Labels": {"maintainer": "maintainers@example.com"},
        },
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [
            *({"created_by": step.format(name=short)} for step in _STEPS),
            {"created_by": 'CMD ["nginx" "-g" "daemon off;"]', "empty_layer": True},
        ],
    }
    configuration = Blob(_print(config), DOCKER_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": configuration.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return [configuration, *layers], Blob(_print(manifest), DOCKER_MANIFEST)


def _push(registry: str, name: str, tag: str) -> None:
    entries = []
    for architecture in ("amd64", "arm64", "s390x"):
        blobs, manifest = _image(name, tag, architecture)
        for blob in blobs:
            push_blob(registry, name, blob)
        push_manifest(registry, name, manifest.digest, manifest)
        entries.append(manifest.descriptor(platform={"os": "linux", "architecture": architecture}))
    annotations = {
        "org.opencontainers.image.version": tag,
        "org.opencontainers.image.url": f"https://example.com/{name}",
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "annotations": annotations}
    push_manifest(registry, name, tag, Blob(_print(index), OCI_INDEX))


def _pull(proxy: Proxy, registry: str, name: str, tag: str) -> None:
    path = f"/v2/{registry}/{name}"
    accept = {"Accept": f"{OCI_INDEX}, {DOCKER_MANIFEST}"}
    for architecture in ("amd64", "arm64")[: 1 + (tag == "latest")]:
        blobs, manifest = _image(name, tag, architecture)
        for part in (f"manifests/{tag}", f"manifests/{manifest.digest}", *(f"blobs/{blob.digest}" for blob in blobs)):
            proxy.get(f"{path}/{part}", **accept)


def _invented(start: int, seconds: int) -> Totals:
    """What a mirror of a few dozen machines may do in this time, more by day than by night."""
    dice = random.Random(start)  # noqa: S311 - not a secret
    pulls = int((1.2 - math.cos(start / 13751)) * seconds * dice.uniform(1.5, 3))
    misses = int(pulls * dice.uniform(0.02, 0.15))
    latencies = [0] * (len(DURATION_BOUNDS) + 1)
    for _ in range(min(pulls, 2000)):
        latencies[max(0, int(dice.gauss(2, 1.2)) + 5 * (dice.randrange(50) == 0))] += 1
    out, into = pulls * 3_000_000, misses * 3_000_000
    failed = dice.choice((0, 0, 0, 0, 0, 0, 0, 2, 5))
    return Totals(pulls - misses, misses, into, out, out - into, failed, 0, pulls // 300, failed // 2, tuple(latencies))


async def _invent_history(cache: Path) -> None:
    database, now = SqliteDatabase(cache / "history.sqlite3", HISTORY), SystemClock().now()
    starts = [(one.seconds, one.start_of(now) - past * one.seconds) for one in RESOLUTIONS for past in range(one.kept)]
    buckets = [Bucket(seconds, start, _invented(start, seconds)) for seconds, start in starts]
    await SqliteHistoryArchive(database).save(buckets, now)
    await database.close()


@contextmanager
def _mirror(folder: Path) -> Iterator[Proxy]:
    """A mirror that believes to be https://mirror.example.com and to mirror Docker Hub and Quay."""
    with docker_registry(folder, folder / "content", "hub") as registry:
        for images in _IMAGES.values():
            for name, tags in images.items():
                for tag in tags:
                    _push(registry.url, name, tag)
        file = folder / "mirror.toml"
        file.write_text(
            'self_registry = "https://mirror.example.com"\n'
            f'[[upstreams]]\nname = "docker.io"\nurl = "{registry.url}"\nlibrary = true\n'
            f'[[upstreams]]\nname = "quay.io"\nurl = "{registry.url.replace("127.0.0.1", "localhost")}"\n'
        )
        cache = folder / "cache"
        cache.mkdir()
        asyncio.run(_invent_history(cache))
        with serving(folder, CONFIG=str(file), CACHE_DIR=str(cache), ADMIN_ACCOUNTS=f"olga:{_HASH}") as proxy:
            yield proxy


@contextmanager
def _busy_mirror(folder: Path) -> Iterator[Proxy]:
    """A mirror that believes to mirror Docker Hub and Quay, and that downloads layers from slow registries."""
    with faulty_upstream(folder, folder / "hub-files") as hub, faulty_upstream(folder, folder / "quay-files") as quay:
        upstreams = {"docker.io": hub, "quay.io": quay}
        file = folder / "busy.toml"
        tables = [f'[[upstreams]]\nname = "{name}"\nurl = "{one.url}"\n' for name, one in upstreams.items()]
        file.write_text("".join(tables))
        clients: list[Drain] = []
        with serving(folder, CONFIG=str(file)) as proxy:
            for registry, rate in _RATES.items():
                upstreams[registry].control({"path": "blobs", "rate": rate})
            for registry, name, size, readers in _DOWNLOADS:
                path = f"/v2/{registry}/{name}/blobs/{upstreams[registry].blob(size).digest}"
                clients += [Drain(proxy.port, path) for _ in range(readers)]
            for client in clients:
                client.start()
            time.sleep(_DOWNLOADED_SECONDS)
            yield proxy
        for client in clients:
            client.join()


def _shoot(browser: Browser, proxy: Proxy, name: str, path: str, **options: Any) -> None:
    with tab(browser, proxy.url, **options) as shown:
        shown.open(path)
        _save(shown, name, options)


def _save(shown: Tab, name: str, options: dict[str, Any]) -> None:
    """As high as the page."""
    height = min(_LONGEST, int(shown.page.evaluate("document.documentElement.scrollHeight")))
    width = options.get("viewport", WIDE)["width"]
    shown.page.set_viewport_size({"width": width, "height": max(height, 500)})
    shown.page.screenshot(path=FOLDER / f"{name}.png")


def _shoot_administration(chrome: Browser, proxy: Proxy, image: str) -> None:
    login = {"http_credentials": _OPERATOR}
    _shoot(chrome, proxy, "admin-light", "/admin", **login)
    _shoot(chrome, proxy, "admin-narrow", "/admin", viewport=NARROW, **login)
    _shoot(chrome, proxy, "purge-dark", f"/admin/purge?{image}", color_scheme="dark", **login)
    with tab(chrome, proxy.url, **login) as shown:
        shown.open("/admin")
        shown.page.locator("#warm-image").fill("docker.io/library/nginx:latest")
        shown.page.locator("form[action='/admin/warm'] button").click()
        shown.page.locator(".job.done").wait_for()
        _save(shown, "job-light", {})
    _shoot(chrome, proxy, "job-narrow", "/admin/job", viewport=NARROW, **login)
    _shoot(chrome, proxy, "job-dark", "/admin/job", color_scheme="dark", **login)
    for name, options in {
        "why-light": {},
        "why-dark": {"color_scheme": "dark"},
        "why-narrow": {"viewport": NARROW},
    }.items():
        _shoot_explanation(chrome, proxy, name, **login, **options)


def _shoot_pins(chrome: Browser, proxy: Proxy) -> None:
    """After the workers have checked the images, the last of which does not exist."""
    login = {"http_credentials": _OPERATOR}
    with tab(chrome, proxy.url, **login) as shown:
        for image, platforms in _PINNED:
            shown.open("/admin/pins")
            shown.page.locator("#pin-image").fill(image)
            shown.page.locator("#platforms").fill(platforms)
            shown.page.locator("form[action='/admin/pins'] button").click()
        while shown.page.locator("tbody .badge:not(.good, .bad)").count():
            time.sleep(1)
            shown.open("/admin/pins")
    _shoot(chrome, proxy, "pins-light", "/admin/pins", **login)
    _shoot(chrome, proxy, "pins-dark", "/admin/pins", color_scheme="dark", **login)
    _shoot(chrome, proxy, "pins-narrow", "/admin/pins", viewport=NARROW, **login)
    _shoot(chrome, proxy, "pins-chinese", "/admin/pins", locale="zh-CN", **login)


def _shoot_explanation(chrome: Browser, proxy: Proxy, name: str, **options: Any) -> None:
    with tab(chrome, proxy.url, **options) as shown:
        shown.open("/admin")
        shown.page.locator("#image").fill("docker.io/library/nginx:latest")
        shown.page.locator("form[action='/admin/why'] button").click()
        shown.page.locator("dl.facts").wait_for()
        _save(shown, name, options)


def main() -> None:
    """Write all screenshots."""
    FOLDER.mkdir(exist_ok=True)
    image = urlencode({"registry": "docker.io", "repository": "library/nginx", "reference": "latest"})
    tags = urlencode({"registry": "docker.io", "repository": "library/python"})
    use_it, browse, details = "/?image=nginx:latest", "/browse", f"/browse/image?{image}"
    podman = "/?image=quay.io/prometheus/prometheus:v3.7.1&client=podman"
    with tempfile.TemporaryDirectory() as folder, _mirror(Path(folder)) as proxy, chromium() as chrome:
        _shoot(chrome, proxy, "empty-light", "/browse")
        for registry, images in _IMAGES.items():
            for name, tagged in images.items():
                for tag in tagged:
                    _pull(proxy, registry, name, tag)
        for name, tag in (("library/nginx", "latest"), ("library/redis", "8"), ("library/postgres", "17")):
            _pull(proxy, "docker.io", name, tag)  # from the cache
        history = "/history?range=day"
        for name, path in {
            "use-it": use_it,
            "browse": browse,
            "image": details,
            "pulls": "/pulls",
            "history": history,
        }.items():
            _shoot(chrome, proxy, f"{name}-light", path)
            _shoot(chrome, proxy, f"{name}-dark", path, color_scheme="dark")
            _shoot(chrome, proxy, f"{name}-narrow", path, viewport=NARROW)
        for name, path in {"use-it": podman, "image": details, "pulls": "/pulls", "history": history}.items():
            _shoot(chrome, proxy, f"{name}-chinese", path, locale="zh-CN")
        _shoot_administration(chrome, proxy, image)
        _shoot_pins(chrome, proxy)
        _shoot(chrome, proxy, "tags-light", f"/browse/repository?{tags}")
        _shoot(chrome, proxy, "search-light", "/browse?q=prom")
    with tempfile.TemporaryDirectory() as folder, _busy_mirror(Path(folder)) as proxy, chromium() as chrome:
        _shoot(chrome, proxy, "now-light", "/now")
        _shoot(chrome, proxy, "now-dark", "/now", color_scheme="dark")
        _shoot(chrome, proxy, "now-narrow", "/now", viewport=NARROW)
        _shoot(chrome, proxy, "now-chinese", "/now", locale="zh-CN")


if __name__ == "__main__":
    main()
