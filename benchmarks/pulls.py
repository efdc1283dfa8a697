"""The time of a real `docker pull` through the service and directly from the upstream."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.arena import Arena
from benchmarks.contenders import REPOSITORY, Server
from benchmarks.downloads import BadAnswerError
from benchmarks.results import DIRECT, OURS
from tests.e2e.support.docker import NOWHERE, Docker, NotReadyError, dockerd, why_no_dockerd

PULLS = "docker pull"
IMAGE = "the image of four layers"
WARM, COLD = f"{OURS}, warm", f"{OURS}, cold"


def docker_pulls(arena: Arena, servers: Sequence[Server]) -> None:
    if reason := why_no_dockerd():
        arena.results.note(f"docker pull was not measured: {reason}.")
        return
    warm = next(server for server in servers if server.name == OURS)
    with arena.room("docker") as folder, _temporary_files_in(folder):
        try:
            with dockerd(NOWHERE, folder / "dockerd.log") as daemon:
                _pull_in_turn(arena, Docker(daemon.socket, folder / "client"), warm)
        except NotReadyError as reason:
            last = str(reason).splitlines()[-1]
            arena.results.note(f"docker pull was not measured: dockerd does not start here ({last}).")


def _pull_in_turn(arena: Arena, docker: Docker, warm: Server) -> None:
    # The first pulls are not measured: docker initializes itself, and the warm server fills its cache.
    for port in (arena.upstream.port, warm.port):
        _pull(arena, docker, port)
    for _ in range(arena.plan.rounds):
        arena.results.add(PULLS, IMAGE, DIRECT, seconds=_pull(arena, docker, arena.upstream.port))
        arena.results.add(PULLS, IMAGE, WARM, seconds=_pull(arena, docker, warm.port))
        with arena.fresh(OURS) as cold:
            arena.results.add(PULLS, IMAGE, COLD, seconds=_pull(arena, docker, cold.port))


def _pull(arena: Arena, docker: Docker, port: int) -> float:
    reference = f"127.0.0.1:{port}/{REPOSITORY}:1"
    arena.make_resident(arena.plan.layer * len(arena.image.layers))  # docker stores the layers, also of a warm pull
    began = time.perf_counter()
    docker.pull(reference).ok()
    seconds = time.perf_counter() - began
    if docker.diff_ids(reference) != list(arena.image.diff_ids):
        raise BadAnswerError(f"docker got wrong layers for {reference}")
    docker.forget_images()
    return seconds


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Put temporary files into this folder: dockerd() creates its data folder there, and a disk would be slower."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
