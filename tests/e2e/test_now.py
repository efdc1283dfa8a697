"""The page shows the running downloads of all workers, each to those who may read the same."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.support.browser import PROGRAM, chromium, tab
from tests.e2e.support.cached_mirror import KIB, MIB, NAME, Cached, Made, cached, faulty_upstream
from tests.e2e.support.draining_clients import Drain
from tests.e2e.support.plain_http import send
from tests.e2e.support.processes import session_pids, wait_until
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import PRIVATE, Content, LoggedUpstream, account_entry, basic, gated

RATE = MIB
"""Bytes per second of the slow upstream."""


@pytest.fixture(scope="module")
def slow(serve: Serving, workplace: Path) -> Iterator[Cached]:
    """A mirror of a slow upstream without authentication, which fetches over one connection."""
    with (
        faulty_upstream(workplace, workplace / "now-files") as upstream,
        cached(serve, upstream, workplace / "now-cache", DOWNLOAD_CONNECTIONS="1") as mirror,
    ):
        yield mirror


@contextmanager
def downloading(mirror: Cached, size: int = 20 * MIB) -> Iterator[Made]:
    """A blob is downloaded slowly meanwhile, and then quickly."""
    made = mirror.upstream.blob(size)
    mirror.upstream.control({"path": made.digest, "rate": RATE, "times": 1})
    client = Drain(mirror.proxy.port, made.path, digest=True)
    client.start()
    try:
        yield made
    finally:
        client.join()
    assert (client.status, client.digest) == (200, made.digest)


def pages(proxy: Proxy, authorization: str | None = None) -> list[str]:
    """The page as each worker shows it."""
    headers = {"Authorization": authorization} if authorization else {}
    with proxy.connection_to_each_worker() as connections:
        answers = [send(connection, "GET", "/now", headers) for connection in connections]
    assert {answer.status for answer in answers} == {200}
    return [answer.body.decode() for answer in answers]


def shows(proxy: Proxy, name: str, digest: str, authorization: str | None = None) -> set[bool]:
    """Whether the workers show the download."""
    return {f"</span>{name}<" in page and digest[:19] in page for page in pages(proxy, authorization)}


def bytes_per_second(page: str, figure: str) -> float:
    found = re.search(rf"<dt>{figure}</dt><dd>([\d.]+) (\w?B)/s</dd>", page)
    assert found, page
    return float(found[1]) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[found[2]]


@pytest.mark.real
def test_every_worker_shows_the_download_its_progress_and_its_speed(slow: Cached) -> None:
    proxy = slow.proxy
    with downloading(slow) as made:
        assert wait_until(lambda: shows(proxy, NAME, made.digest) == {True}, 10)

        def progress() -> list[tuple[int, int]]:
            found = [re.search(r'<progress value="(\d+)" max="(\d+)"', page) for page in pages(proxy)]
            return [(int(one[1]), int(one[2])) for one in found if one]

        before = progress()
        assert {total for _, total in before} == {made.size}
        assert wait_until(lambda: min(progress())[0] > max(before)[0], 10)
        assert wait_until(lambda: all(re.search(r">1\.\d MB/s</td>", page) for page in pages(proxy)), 10)
        for page in pages(proxy):
            assert [int(number) for number in re.findall(r'<td class="number">(\d+)</td>', page)] == [1, 1]
            assert "Running downloads</dt><dd>1<" in page
    assert wait_until(lambda: shows(proxy, NAME, made.digest) == {False}, 10)
    assert all("Nothing is being downloaded." in page for page in pages(proxy))


@pytest.mark.real
def test_the_rates_are_those_of_the_transfers_that_run(slow: Cached) -> None:
    with downloading(slow):

        def is_rate_of_the_line(figure: str) -> bool:
            return all(0.5 * RATE < bytes_per_second(page, figure) < 1.5 * RATE for page in pages(slow.proxy))

        assert wait_until(lambda: is_rate_of_the_line("Received from upstreams"), 15)
        assert wait_until(lambda: is_rate_of_the_line("Sent to clients"), 15)


@pytest.mark.real
def test_a_killed_worker_leaves_no_download_behind(serve: Serving, workplace: Path, tmp_path: Path) -> None:
    with (
        faulty_upstream(workplace, tmp_path / "files") as upstream,
        cached(serve, upstream, tmp_path / "cache", DOWNLOAD_CONNECTIONS="1") as mirror,
    ):
        made = upstream.blob(20 * MIB)
        upstream.control({"path": made.digest, "hold_after": MIB})
        with mirror.proxy.connection_to_each_worker() as (connection, _):
            connection.request("GET", made.path)
            assert wait_until(lambda: shows(mirror.proxy, NAME, made.digest) == {True}, 10)
            worker = mirror.proxy.worker_of(connection)
            os.kill(worker, signal.SIGKILL)
            assert wait_until(lambda: worker not in session_pids(mirror.proxy.process.pid), 10)
        assert wait_until(lambda: shows(mirror.proxy, NAME, made.digest) == {False}, 15)


@pytest.mark.real("docker-registry")
@pytest.mark.parametrize("accounts", [("alice", "bob"), ()], ids=["accounts", "without accounts"])
def test_a_download_of_a_private_image_is_shown_only_to_those_whom_the_upstream_gave_it(
    serve: Serving, spied_token: LoggedUpstream, content: Content, tmp_path: Path, accounts: tuple[str, ...]
) -> None:
    layer = content.images[PRIVATE].layers[1]
    settings = {"ACCOUNTS": ",".join(map(account_entry, accounts))} if accounts else {}
    with gated(tmp_path, spied_token, 256 * KIB) as (url, gate):
        settings |= {**spied_token.settings, "UPSTREAM_REGISTRY": url}
        with serve(**settings) as proxy:
            token = proxy.token(f"repository:{PRIVATE}:pull", "alice")
            path = f"/v2/{PRIVATE}/blobs/{layer.digest}"
            client = Drain(proxy.port, path, [f"Authorization: Bearer {token}"], digest=True)
            client.start()
            try:
                runs = "Running downloads</dt><dd>1<"
                assert wait_until(lambda: all(runs in page for page in pages(proxy)), 10)
                if accounts:
                    assert wait_until(lambda: shows(proxy, PRIVATE, layer.digest, basic("alice")) == {True}, 10)
                strangers = (None, basic("bob")) if accounts else (None, basic("bob"), basic("alice"))
                for authorization in strangers:
                    for page in pages(proxy, authorization):
                        assert PRIVATE not in page, authorization
                        assert layer.digest[:19] not in page, authorization
                        assert "No download is running that you may see." in page
            finally:
                gate.touch()
                client.join()
            assert (client.status, client.digest) == (200, layer.digest)
            assert wait_until(lambda: shows(proxy, PRIVATE, layer.digest, basic("alice")) == {False}, 10)


@pytest.mark.real(PROGRAM)
@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}], ids=["light", "dark"])
def test_a_browser_follows_a_download_to_its_end(slow: Cached, options: dict[str, object]) -> None:
    with chromium() as browser, tab(browser, slow.proxy.url, **options) as shown:
        shown.open("/now")
        main = shown.page.locator("main")
        expect(main).to_contain_text("Nothing is being downloaded.")
        with downloading(slow, 12 * MIB) as made:
            bar = shown.page.locator("progress")
            expect(bar).to_be_visible(timeout=10_000)
            expect(main).to_contain_text(f"{NAME} {made.digest[:19]}")
            assert shown.barriers() == []
            assert shown.overflow() <= 0
            first = bar.get_attribute("value")
            expect(bar).not_to_have_attribute("value", str(first), timeout=10_000)
        expect(main).to_contain_text("Nothing is being downloaded.", timeout=10_000)
        assert shown.messages == []
        assert shown.foreign_requests == []
