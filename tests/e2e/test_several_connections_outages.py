"""The upstream, a worker, the disk or the settings change while the mirror fetches a blob over several connections."""

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from domain.byte_ranges import Span
from domain.span_set import SpanSet
from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, Made, cached, faulty_upstream, pull_over
from tests.e2e.support.docker import run
from tests.e2e.support.processes import free_port, pause, wait_until
from tests.e2e.support.service import Serving
from tests.e2e.support.several_connections import SIZE, are_right, limited, present, pulling, sent

pytestmark = pytest.mark.real()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def upstream(tmp_path: Path, port: int) -> Iterator[FaultyUpstream]:
    with faulty_upstream(tmp_path, tmp_path / "files", port) as running_one:
        yield running_one


@pytest.fixture
def blob(upstream: FaultyUpstream) -> Made:
    made = upstream.blob(SIZE)
    upstream.control(*limited(made))
    return made


def test_clients_do_not_notice_that_a_signed_address_expires(
    serve: Serving, upstream: FaultyUpstream, blob: Made, tmp_path: Path
) -> None:
    with (
        faulty_upstream(tmp_path, upstream.files) as storage,
        cached(serve, upstream, tmp_path / "cache") as service,
    ):
        upstream.control({"path": blob.digest, "redirect": storage.url})
        storage.control(*limited(blob))
        with pulling(service, blob) as clients:
            assert storage.sends(2)
            storage.control({"path": "signature=1$", "status": 403}, *limited(blob))
            assert are_right(clients, blob)
        assert service.cache.holds(blob)
        gets = [entry for entry in storage.log() if entry["method"] == "GET" and blob.digest in entry["path"]]
        answers = {(entry["path"].rpartition("=")[2], entry["status"]) for entry in gets}
    assert {("1", 200), ("1", 206), ("1", 403), ("2", 206)} <= answers


def test_clients_do_not_notice_a_restart_of_the_upstream(
    serve: Serving, upstream: FaultyUpstream, blob: Made, port: int, tmp_path: Path
) -> None:
    with (
        cached(serve, upstream, tmp_path / "cache", FILL_RETRIES="20") as service,
        pulling(service, blob) as clients,
    ):
        assert upstream.sends(2)
        upstream.process.kill()
        with faulty_upstream(tmp_path, upstream.files, port) as returned:
            assert are_right(clients, blob)
            assert service.cache.holds(blob)
            assert 0 < sent(returned, blob) < SIZE, "the bytes that were present are not fetched again"


def test_clients_do_not_notice_that_another_address_continues(
    serve: Serving, upstream: FaultyUpstream, blob: Made, tmp_path: Path
) -> None:
    with (
        faulty_upstream(tmp_path, upstream.files) as second,
        cached(serve, upstream, tmp_path / "cache", UPSTREAM_FALLBACKS=second.url) as service,
        pulling(service, blob) as clients,
    ):
        assert upstream.sends(2)
        assert second.gets(blob.path) == []
        upstream.process.kill()
        assert are_right(clients, blob)
        assert service.cache.holds(blob)
        assert 0 < sent(second, blob) < SIZE, "the bytes that were present are not fetched again"


def test_clients_do_not_notice_a_reload(serve: Serving, upstream: FaultyUpstream, blob: Made, tmp_path: Path) -> None:
    """The reload changes the settings of the connections to the upstream."""
    config = tmp_path / "settings.toml"
    config.write_text("upstream_timeout = 25\n")
    with (
        cached(serve, upstream, tmp_path / "cache", CONFIG=str(config)) as service,
        pulling(service, blob) as clients,
    ):
        assert upstream.sends(2)
        config.write_text("upstream_timeout = 24\ndownload_connections = 1\n")
        assert any("settings reloaded" in line for line in service.proxy.reload())
        assert are_right(clients, blob)
        assert service.cache.holds(blob)
        assert sent(upstream, blob) <= 1.25 * SIZE, "no part is fetched again"
        assert service.complaints() == []


# --- killed workers ---


def kill_while_several_run(service: Cached, blob: Made, victims: set[int]) -> tuple[SpanSet, float]:
    """Kill the workers when the partial blob has gaps. Returns the bytes that it has, and the time."""
    assert service.upstream.sends(2)
    assert wait_until(lambda: len(present(service, blob).spans) > 1, 30)
    pause(*victims)
    found = present(service, blob), time.time()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    return found


def fetches_only_the_rest(upstream: FaultyUpstream, blob: Made, kept: SpanSet, since: float) -> bool:
    """Whether no request since that time was for bytes that were kept."""
    later = [entry for entry in upstream.gets(blob.path) if entry["began"] >= since]
    asked = [re.fullmatch(r"bytes=(\d+)-(\d*)", entry["range"] or "bytes=0-") for entry in later]
    spans = [Span(int(one[1]), int(one[2] or SIZE - 1) + 1) for one in asked if one]
    return len(spans) > 0 and not any(kept.overlaps(span) for span in spans)


def test_another_worker_fetches_only_the_missing_bytes_after_a_worker_is_killed(
    serve: Serving, upstream: FaultyUpstream, blob: Made, tmp_path: Path
) -> None:
    with (
        cached(serve, upstream, tmp_path / "cache") as service,
        service.proxy.connection_to_each_worker() as (first, second),
        ThreadPoolExecutor() as pool,
    ):
        victim = service.proxy.worker_of(first)
        interrupted = pool.submit(pull_over, first, blob.path)
        assert upstream.sends(1)
        following = pool.submit(pull_over, second, blob.path)
        kept, killed_at = kill_while_several_run(service, blob, {victim})
        assert not interrupted.result().whole
        assert are_right([following], blob)
        assert service.cache.holds(blob)
        assert service.gives(blob)
        assert fetches_only_the_rest(upstream, blob, kept, killed_at)


def test_a_new_client_gets_only_the_missing_bytes_from_the_upstream_after_all_workers_are_killed(
    serve: Serving, upstream: FaultyUpstream, blob: Made, tmp_path: Path
) -> None:
    with cached(serve, upstream, tmp_path / "cache") as service:
        with pulling(service, blob) as clients, service.proxy.connection_to_each_worker() as connections:
            victims = {service.proxy.worker_of(connection) for connection in connections}
            kept, killed_at = kill_while_several_run(service, blob, victims)
            assert not any(client.result().whole for client in clients)
        with pulling(service, blob) as clients:
            assert are_right(clients, blob)
        assert service.cache.holds(blob)
        assert fetches_only_the_rest(upstream, blob, kept, killed_at)


# --- a full disk ---


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)])
    if mounted.status:
        pytest.skip(f"only root may mount: {mounted.output}")
    yield folder
    run(["umount", "--lazy", str(folder)]).ok()


def test_clients_do_not_notice_that_the_disk_becomes_full(
    serve: Serving, upstream: FaultyUpstream, blob: Made, disk: Path
) -> None:
    with cached(serve, upstream, disk / "cache") as service:
        with pulling(service, blob) as clients:
            assert upstream.sends(2)
            filler = disk / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(MIB))
            upstream.control()
            assert are_right(clients, blob)
        assert not service.cache.file(blob.digest).exists()
        assert wait_until(lambda: service.cache.partial_bytes() == 0, 20)
        filler.unlink()
        assert service.gives(service.warm()), "a blob that fits is cached as usual"
        assert service.cache.wrong() == []
