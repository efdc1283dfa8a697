"""Two upstreams of one mirror have the same blob. One of them is slow or sends wrong bytes, which must not affect the
clients of the other one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, NAME, CacheFolder, FaultyUpstream, Made, faulty_upstream, pull
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Proxy, Serving

pytestmark = pytest.mark.real()

SIZE = 4 * MIB
SLOW, FAST = "slow", "fast"


@dataclass(frozen=True)
class Pair:
    """`slow` and `fast` have the same blobs; the mirror knows them by these names."""

    proxy: Proxy
    slow: FaultyUpstream
    fast: FaultyUpstream
    cache: CacheFolder

    def path(self, upstream: str, made: Made) -> str:
        return f"/v2/{upstream}/{NAME}/blobs/{made.digest}"

    def gives(self, upstream: str, made: Made) -> bool:
        pulled = pull(self.proxy.port, self.path(upstream, made))
        return (pulled.status, pulled.whole, pulled.body) == (200, True, made.content)

    def blob(self) -> Made:
        made = self.slow.blob(SIZE)
        self.fast.add(made.content)
        return made


@pytest.fixture(scope="module")
def pair(serve: Serving, workplace: Path) -> Iterator[Pair]:
    cache, config = workplace / "pair-cache", workplace / "pair.toml"
    with (
        faulty_upstream(workplace, workplace / "pair-slow") as slow,
        faulty_upstream(workplace, workplace / "pair-fast") as fast,
    ):
        config.write_text(
            "".join(
                f'[[upstreams]]\nname = "{name}"\nurl = "{upstream.url}"\nidentity = "anonymous"\n'
                for name, upstream in ((SLOW, slow), (FAST, fast))
            )
        )
        with serve(CONFIG=str(config), CACHE_DIR=str(cache), FILL_RETRIES="0") as proxy:
            yield Pair(proxy, slow, fast, CacheFolder(cache))


@pytest.fixture(autouse=True)
def _faultless(pair: Pair) -> Iterator[None]:
    yield
    if pair.slow.process.returncode is None:
        pair.slow.control()


def test_a_partial_file_of_wrong_bytes_is_not_continued_from_another_upstream(pair: Pair) -> None:
    made = pair.blob()
    pair.slow.control({"path": made.digest, "wrong_prefix": MIB, "cut_after": 2 * MIB, "times": 1}, {"status": 500})
    assert not pair.gives(SLOW, made)
    assert wait_until(lambda: len(pair.cache.abandoned()) > 0, 20)
    assert pair.gives(FAST, made)
    assert [entry["range"] for entry in pair.fast.gets(f"/v2/{NAME}/blobs/{made.digest}")] == [None]
    assert pair.cache.holds(made)


def test_a_slow_download_succeeds_if_the_blob_was_cached_in_the_meantime(pair: Pair) -> None:
    made = pair.blob()
    pair.slow.control({"path": made.digest, "hold_after": 2 * MIB})
    with ThreadPoolExecutor() as pool:
        held = pool.submit(pair.gives, SLOW, made)
        assert pair.slow.holds()
        assert pair.gives(FAST, made)
        assert pair.cache.holds(made)
        pair.slow.control()
        assert held.result()
    encoded = made.digest.partition(":")[2]
    assert wait_until(lambda: not list((pair.cache.path / "drafts").glob(f"*{encoded}*")), 20)
    assert pair.cache.holds(made)
    assert pair.cache.wrong() == []


def test_a_client_of_the_fast_upstream_does_not_wait_for_the_slow_upstream(pair: Pair) -> None:
    made = pair.blob()
    # One byte in 20 ms: at this rate the blob takes a day.
    pair.slow.control({"path": made.digest, "rate": 50})
    with ThreadPoolExecutor() as pool:
        trickling = pool.submit(pair.gives, SLOW, made)
        assert wait_until(lambda: pair.cache.partial_bytes() > 0, 20)
        # Several requests reach both workers: one fetches from the slow upstream, the other sees its lock.
        for _ in range(4):
            assert pair.gives(FAST, made)
        assert not trickling.done()
        assert pair.cache.holds(made)
        # The response from the slow upstream is not replaced, because it has started; it would take a day.
        pair.slow.process.kill()
        assert trickling.result() is False
    assert pair.cache.wrong() == []
