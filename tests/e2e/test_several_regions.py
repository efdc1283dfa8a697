"""The mirror of another region is a fallback of an upstream, as the guide "Several machines" describes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, FaultyUpstream, faulty_upstream, pull
from tests.e2e.support.service import Proxy, Serving

SCOPE = "repository:e2e/cached:pull"
UPSTREAM = '[[upstreams]]\nname = "docker.io"\nidentity = "anonymous"\n'


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "regions-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def other_region(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Proxy]:
    file = workplace / "other-region.toml"
    file.write_text(f'{UPSTREAM}url = "{upstream.url}"\n')
    with serve(CONFIG=str(file), SELF_AUTH_SERVICE="other-region") as proxy:
        yield proxy


def test_a_region_without_a_line_to_the_upstream_pulls_from_the_mirror_of_another_region(
    serve: Serving, upstream: FaultyUpstream, other_region: Proxy, workplace: Path
) -> None:
    file, made = workplace / "region.toml", upstream.blob(MIB)
    # Nothing listens on port 1.
    file.write_text(f'{UPSTREAM}url = "http://127.0.0.1:1"\nfallbacks = ["{other_region.url}/docker.io"]\n')
    with serve(CONFIG=str(file), ready="/livez") as proxy:
        since = other_region.process.mark()
        pulled = pull(proxy.port, made.path, {"Authorization": f"Bearer {proxy.token(SCOPE)}"})
        assert (pulled.status, pulled.body) == (200, made.content)
        paths = [one["path"] for one in other_region.accesses(since) if one["status"] == 200]
        assert f"/docker.io{made.path}" in paths
