"""A refusal that one worker has met holds at all workers of all replicas within five seconds."""

import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import NAME, cached, faulty_upstream, settle
from tests.e2e.support.images import MANIFEST_TYPES, make_image
from tests.e2e.support.machines import KINDS, on
from tests.e2e.support.plain_http import send
from tests.e2e.support.service import Serving

ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
BELIEVED_SECONDS = 5.0
PAUSE = 0.1
CLIENTS = 23
"""Each one comes about twice in five seconds."""
TOLERANCE = 1.0
"""For requests that this machine delays."""


@pytest.mark.parametrize("machines", KINDS[:2])
@pytest.mark.parametrize("caller", [None, "Bearer the-owners-token"])
def test_a_refusal_holds_at_all_workers_within_five_seconds(
    serve: Serving, tmp_path: Path, machines: str, caller: str | None
) -> None:
    """The other workers serve the image all the time, so that each of their memories is as young as it can be."""
    headers = ACCEPT | ({"Authorization": caller} if caller else {})
    settings = {"TAG_TTL": "600", "GRANT_TTL": "600", "STALE_TTL": "600"}
    image, unknown = make_image("image", (5000,)), make_image("unknown", (5000,))
    paths = [f"/v2/{NAME}/manifests/{reference}" for reference in ("1", image.manifest.digest)]
    paths += [f"/v2/{NAME}/blobs/{blob.digest}" for blob in image.blobs]
    with (
        faulty_upstream(tmp_path, tmp_path / "upstream") as upstream,
        cached(on(machines, serve, tmp_path), upstream, tmp_path / "cache", **settings) as mirror,
        mirror.proxy.connection_to_each_worker() as (first, *others),
    ):
        upstream.push(image, "1")
        for connection in (first, *others):
            assert statuses(connection, paths, headers) == {200}
        settle()
        upstream.control({"status": 401, "methods": ["GET", "HEAD"], "path": f"/{NAME}/"})
        until = time.monotonic() + BELIEVED_SECONDS
        while time.monotonic() < until:  # then each worker has just read the index again
            for connection in others:
                assert statuses(connection, paths, headers) == {200}, "the upstream is not asked"
            time.sleep(PAUSE)
        # The first worker asks the upstream, because it does not know this blob.
        assert send(first, "GET", f"/v2/{NAME}/blobs/{unknown.layers[0].digest}", headers).status == 401
        begun = last = time.monotonic()
        while time.monotonic() < begun + 2 * BELIEVED_SECONDS:
            for connection in others:
                if 200 in statuses(connection, paths, headers):
                    last = time.monotonic()
            time.sleep(PAUSE)
        assert last - begun < BELIEVED_SECONDS + TOLERANCE
        for connection in others:
            assert statuses(connection, paths, headers) == {401}


def statuses(connection: HTTPConnection, paths: list[str], headers: dict[str, str]) -> set[int]:
    """The status of each path, for one of several clients, whose responses are cached at different times."""
    client = {"User-Agent": f"client {int(time.monotonic() / PAUSE) % CLIENTS}"}
    return {send(connection, "GET", path, headers | client).status for path in paths}
