"""20 clients pull a blob of 2 GiB at the same time; the memory of the service does not depend on the size."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.draining_clients import Drain
from tests.e2e.support.memory_use import PssSampler
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import LoggedUpstream, blob_server

GIB = 1 << 30
MIB = 1 << 20
SIZE = 2 * GIB
CLIENTS = 20


@pytest.fixture
def huge(workplace: Path, tmp_path: Path) -> Iterator[tuple[LoggedUpstream, str]]:
    """A server with one sparse file that has random bytes at the start of each MiB, so that the order is checked."""
    file = tmp_path / "huge"
    with file.open("wb") as out:
        for offset in range(0, SIZE, MIB):
            out.seek(offset)
            out.write(os.urandom(16))
        out.truncate(SIZE)
    with file.open("rb") as content:
        digest = "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()
    file.rename(tmp_path / digest)
    with blob_server(workplace, tmp_path) as upstream:
        yield upstream, digest


@pytest.mark.alone
@pytest.mark.timeout(280)
def test_twenty_clients_of_a_2_gib_blob_need_less_than_125_mib(
    huge: tuple[LoggedUpstream, str], serve: Serving
) -> None:
    upstream, digest = huge
    with serve(**upstream.settings) as proxy:
        token = f"Authorization: Bearer {proxy.token('repository:e2e/huge:pull')}"
        path = f"/v2/e2e/huge/blobs/{digest}"
        drains = [Drain(proxy.port, path, [token], digest=number == 0) for number in range(CLIENTS)]
        with PssSampler(proxy.process.pid) as sampler:
            for drain in drains:
                drain.start()
            for drain in drains:
                drain.join()
    print(f"peak of {len(sampler.samples)} samples: {sampler.peak / MIB:.0f} MiB")
    assert [(drain.status, drain.received) for drain in drains] == [(200, SIZE)] * CLIENTS
    assert drains[0].digest == digest
    assert len(sampler.samples) > 10
    assert sampler.peak < 125 * MIB
