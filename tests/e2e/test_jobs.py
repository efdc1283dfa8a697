"""Jobs of operators in a real service with two workers."""

import os
import re
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import NAME, Cached, FaultyUpstream, Made, cached, faulty_upstream, settle
from tests.e2e.support.images import OCI_MANIFEST, make_image
from tests.e2e.support.plain_http import UpstreamResponse, send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Serving
from tests.e2e.test_administration import FORM, OLGA, OPERATORS, audits, post, token

PATIENCE = 30.0
ENDLESS = 1 << 40
"""Bytes of a file with a hole, which takes longer to hash than a test."""


@pytest.fixture(scope="module")
def upstream(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, tmp_path_factory.mktemp("jobs")) as running:
        yield running


@pytest.fixture
def mirror(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> Iterator[Cached]:
    operators = tmp_path / "operators"
    operators.write_text(OPERATORS)
    upstream.control()
    with cached(serve, upstream, tmp_path / "cache", ADMIN_ACCOUNTS_FILE=str(operators)) as running:
        yield running


def pulled(mirror: Cached, upstream: FaultyUpstream) -> Made:
    made = upstream.blob()
    assert mirror.proxy.get(made.path).body == made.content
    assert mirror.cache.holds(made)
    return made


def submit(worker: HTTPConnection, path: str, token: str, fields: str = "") -> UpstreamResponse:
    """Send a form to this worker."""
    return send(worker, "POST", path, FORM, f"token={token}&{fields}".encode())


def shown(worker: HTTPConnection) -> str:
    """The job as this worker shows it."""
    answer = send(worker, "GET", "/admin/job", {"Authorization": OLGA})
    assert answer.status == 200
    return answer.body.decode()


def state(worker: HTTPConnection) -> str:
    found = re.search(r'class="job (\w+)"', shown(worker))
    return found[1] if found else ""


def results(mirror: Cached) -> list[tuple[str, str]]:
    return [(one["action"], one["result"]) for one in audits(mirror.proxy)]


def test_a_verification_removes_a_damaged_blob_which_is_fetched_again(mirror: Cached, upstream: FaultyUpstream) -> None:
    good, damaged = pulled(mirror, upstream), pulled(mirror, upstream)
    file = mirror.cache.file(damaged.digest)
    file.chmod(0o600)
    file.write_bytes(bytes(damaged.size))
    assert post(mirror.proxy, "/admin/verify", {"token": "x"}).status == 403
    begun = post(mirror.proxy, "/admin/verify", {"token": token(mirror.proxy)})
    assert (begun.status, begun.headers["Location"]) == (303, "/admin/job")
    with mirror.proxy.connection_to_each_worker() as workers:
        for worker in workers:
            assert wait_until(lambda worker=worker: state(worker) == "done", PATIENCE)
            assert "<dt>Damaged and removed</dt><dd>1</dd>" in shown(worker)
    assert not file.exists()
    since = upstream.mark()
    for made in (good, damaged):
        assert mirror.proxy.get(made.path).body == made.content
    assert (upstream.gets(good.path, since), len(upstream.gets(damaged.path, since))) == ([], 1)
    assert results(mirror) == [("verify", "started"), ("verify", "done; 1 intact, 1 damaged and removed")]


def test_every_worker_shows_the_job_refuses_another_and_cancels_it(mirror: Cached, upstream: FaultyUpstream) -> None:
    other, endless = pulled(mirror, upstream), pulled(mirror, upstream)
    os.truncate(mirror.cache.file(endless.digest), ENDLESS)
    form = token(mirror.proxy)
    with mirror.proxy.connection_to_each_worker() as workers:
        one, another = workers
        assert submit(one, "/admin/verify", form).status == 303
        for worker in workers:
            assert wait_until(lambda worker=worker: "1.0 MB of 2.1 MB" in shown(worker), PATIENCE)
            assert state(worker) == "running"
            refused = submit(worker, "/admin/verify", form)
            assert refused.status == 409
            assert b"verify cache is running, started by olga" in refused.body
        for _ in range(20):
            # The worker that hashes serves its clients meanwhile.
            assert send(one, "GET", other.path).body == other.content
        assert state(one) == "running"
        assert submit(another, "/admin/job/cancel", form, "number=1").status == 303
        for worker in workers:
            assert wait_until(lambda worker=worker: state(worker) == "cancelled", PATIENCE)
        os.truncate(mirror.cache.file(endless.digest), 0)
        assert submit(another, "/admin/verify", form).status == 303
        assert wait_until(lambda: state(one) == "done", PATIENCE)
    assert results(mirror)[:3] == [
        ("verify", "started"),
        ("cancel", "requested"),
        ("verify", "cancelled; 1 intact, 0 damaged and removed"),
    ]


def test_the_job_of_a_killed_worker_is_lost_and_the_next_one_begins(mirror: Cached, upstream: FaultyUpstream) -> None:
    endless = pulled(mirror, upstream)
    os.truncate(mirror.cache.file(endless.digest), ENDLESS)
    with mirror.proxy.connection_to_each_worker() as workers:
        one, another = workers
        process = mirror.proxy.worker_of(one)
        assert submit(one, "/admin/verify", token(mirror.proxy)).status == 303
        assert wait_until(lambda: state(another) == "running", PATIENCE)
        os.kill(process, signal.SIGKILL)
        assert wait_until(lambda: state(another) == "lost", PATIENCE)
        assert "was killed" in shown(another)
        os.truncate(mirror.cache.file(endless.digest), 0)
        assert submit(another, "/admin/verify", token(mirror.proxy)).status == 303
        assert wait_until(lambda: state(another) == "done", PATIENCE)
        # The damaged file was removed: the second verification hashed the whole of it.
        assert not mirror.cache.file(endless.digest).exists()


def test_a_job_goes_on_over_a_reload_and_ends_with_the_service(mirror: Cached, upstream: FaultyUpstream) -> None:
    endless = pulled(mirror, upstream)
    os.truncate(mirror.cache.file(endless.digest), ENDLESS)
    with mirror.proxy.connection_to_each_worker() as workers:
        one, another = workers
        assert submit(one, "/admin/verify", token(mirror.proxy)).status == 303
        os.kill(mirror.proxy.process.pid, signal.SIGHUP)
        assert wait_until(lambda: any("settings reloaded" in line for line in mirror.proxy.process.log_lines()), 15)
        for worker in workers:
            assert state(worker) == "running"
        assert submit(another, "/admin/verify", token(mirror.proxy)).status == 409
    mirror.proxy.process.terminate()
    assert mirror.proxy.process.wait(PATIENCE) == 0
    assert results(mirror)[-1] == ("verify", "cancelled; 0 intact, 0 damaged and removed")
    assert mirror.cache.file(endless.digest).exists()


def test_after_a_reload_the_other_settings_cancel_the_job(mirror: Cached, upstream: FaultyUpstream) -> None:
    endless = pulled(mirror, upstream)
    os.truncate(mirror.cache.file(endless.digest), ENDLESS)
    assert post(mirror.proxy, "/admin/verify", {"token": token(mirror.proxy)}).status == 303
    os.kill(mirror.proxy.process.pid, signal.SIGHUP)
    assert wait_until(lambda: any("settings reloaded" in line for line in mirror.proxy.process.log_lines()), 15)
    assert post(mirror.proxy, "/admin/job/cancel", {"token": token(mirror.proxy), "number": "1"}).status == 303
    with mirror.proxy.connection_to_each_worker() as workers:
        assert wait_until(lambda: state(workers[0]) == "cancelled", PATIENCE)


def test_a_warmed_image_is_a_hit_for_every_worker(mirror: Cached, upstream: FaultyUpstream) -> None:
    image = make_image("warmed", (40_000, 3_000_000))
    upstream.push(image, "warmed")
    form = token(mirror.proxy)
    accept = {"Accept": OCI_MANIFEST}
    with mirror.proxy.connection_to_each_worker() as workers:
        begun = submit(workers[0], "/admin/warm", form, f"image={NAME}:warmed")
        assert (begun.status, begun.headers["Location"]) == (303, "/admin/job")
        for worker in workers:
            assert wait_until(lambda worker=worker: state(worker) == "done", PATIENCE)
            assert f"{NAME}:warmed" in shown(worker)
        settle()
        since = upstream.mark()
        for worker in workers:
            manifest = send(worker, "GET", f"/v2/{NAME}/manifests/{image.manifest.digest}", accept)
            assert manifest.body == image.manifest.content
            for blob in image.blobs:
                assert send(worker, "GET", f"/v2/{NAME}/blobs/{blob.digest}").body == blob.content
        assert [entry for entry in upstream.log(since) if entry["path"] != "/v2/"] == []
    size = sum(len(blob.content) for blob in image.blobs)
    assert results(mirror) == [("warm", "started"), ("warm", f"done; {size} of {size} bytes cached")]


def test_progress_of_a_slow_warming_is_shown_and_it_is_cancelled_by_another_worker(
    mirror: Cached, upstream: FaultyUpstream
) -> None:
    image = make_image("slow", (8_000_000,))
    upstream.push(image, "slow")
    upstream.control({"path": "blobs", "rate": 1_000_000})
    form = token(mirror.proxy)
    with mirror.proxy.connection_to_each_worker() as workers:
        one, another = workers
        assert submit(one, "/admin/warm", form, f"image={NAME}:slow").status == 303
        assert wait_until(lambda: re.search(r'<progress value="[1-9]', shown(another)) is not None, PATIENCE)
        assert submit(another, "/admin/verify", form).status == 409
        assert submit(another, "/admin/job/cancel", form, "number=1").status == 303
        for worker in workers:
            assert wait_until(lambda worker=worker: state(worker) == "cancelled", PATIENCE)
        upstream.control()
        # What was fetched until then stays, and the next warming fetches the rest.
        assert submit(another, "/admin/warm", form, f"image={NAME}:slow").status == 303
        assert wait_until(lambda: state(one) == "done", PATIENCE)
    assert results(mirror)[1] == ("cancel", "requested")
    assert results(mirror)[2][1].startswith("cancelled; ")
