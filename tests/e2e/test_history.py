"""The history on the page: the numbers of all workers, also after the service was killed and started again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.support.browser import PROGRAM, chromium, tab
from tests.e2e.support.cached_mirror import CacheFolder
from tests.e2e.support.images import OCI_MANIFEST
from tests.e2e.support.plain_http import send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import PUBLIC, Content, LoggedUpstream

pytestmark = pytest.mark.real("docker-registry")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def figures(proxy: Proxy) -> set[tuple[str, ...]]:
    """The hit ratio, and the bytes to clients and from upstreams, as each worker shows them."""
    with proxy.connection_to_each_worker() as connections:
        pages = [send(connection, "GET", "/history").body.decode() for connection in connections]
    return {tuple(part.partition("</dd>")[0] for part in page.split("<dd>")[1:4]) for page in pages}


def pull_blob(proxy: Proxy, folder: Path, digest: str, times: int) -> None:
    """After the first pull, each is a hit in every worker. `folder`: the cache of the proxy."""
    token = proxy.token(f"repository:{PUBLIC}:pull")
    for _ in range(times):
        assert proxy.get(f"/v2/{PUBLIC}/blobs/{digest}", f"Bearer {token}", Accept=OCI_MANIFEST).status == 200
        assert wait_until(lambda: CacheFolder(folder).is_in_index(digest), 10)


def size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"


@pytest.mark.slow
def test_the_numbers_survive_a_kill_and_continue(
    serve: Serving, spied_token: LoggedUpstream, content: Content, tmp_path: Path
) -> None:
    """The counters begin at zero after the kill."""
    cache = tmp_path / "cache"
    blob = min(content.images[PUBLIC].blobs, key=lambda one: len(one.content))
    length = len(blob.content)
    with serve(CACHE_DIR=str(cache), **spied_token.settings) as proxy:
        pull_blob(proxy, cache, blob.digest, 4)
        first = {("75 %", size(4 * length), size(length))}
        assert wait_until(lambda: figures(proxy) == first, 30), figures(proxy)
        os.kill(proxy.process.pid, signal.SIGKILL)
        proxy.process.kill()
    with serve(CACHE_DIR=str(cache), **spied_token.settings) as proxy:
        assert wait_until(lambda: figures(proxy) == first, 30), figures(proxy)
        pull_blob(proxy, cache, blob.digest, 4)
        second = {("87.5 %", size(8 * length), size(length))}
        assert wait_until(lambda: figures(proxy) == second, 30), figures(proxy)


@pytest.mark.slow
def test_a_broken_file_harms_neither_the_start_nor_a_pull(
    serve: Serving, spied_token: LoggedUpstream, content: Content, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "history.sqlite3").mkdir()
    blob = content.images[PUBLIC].blobs[0]
    with serve(CACHE_DIR=str(cache), **spied_token.settings) as proxy:
        pull_blob(proxy, cache, blob.digest, 2)
        assert wait_until(lambda: {one[0] for one in figures(proxy)} == {"50 %"}, 30)
        complaints = [line for line in proxy.process.log_lines() if "the history" in line]
        assert len(complaints) == 1


@pytest.mark.slow
@pytest.mark.real(PROGRAM)
def test_a_browser_draws_the_charts(
    browser: Browser, serve: Serving, spied_token: LoggedUpstream, content: Content, tmp_path: Path
) -> None:
    with serve(CACHE_DIR=str(tmp_path), **spied_token.settings) as proxy:
        pull_blob(proxy, tmp_path, content.images[PUBLIC].blobs[0].digest, 4)
        assert wait_until(lambda: {one[0] for one in figures(proxy)} == {"75 %"}, 30)
        with tab(browser, proxy.url, color_scheme="dark") as shown:
            shown.open("/history")
            charts = shown.page.locator("#charts canvas")
            expect(charts).to_have_count(4)
            shown.page.emulate_media(color_scheme="light")
            expect(charts).to_have_count(4)
            shown.page.set_viewport_size({"width": 375, "height": 720})
            expect(charts.first).to_be_visible()
            assert shown.overflow() <= 0
            drawn = """canvas => new Uint8Array(
                canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer
            ).some(Boolean)"""
            for number in range(4):
                assert charts.nth(number).evaluate(drawn)
            assert shown.messages == []
