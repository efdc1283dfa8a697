"""Fixtures for the real programs. Each program is started once per session, by the first test that needs it."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.support import clients, upstreams
from tests.e2e.support import containerd as real_containerd
from tests.e2e.support import docker as real_docker
from tests.e2e.support.cached_mirror import FaultyUpstream
from tests.e2e.support.certificates import KeyPair, PrivateAuthority, make_authority, make_signer
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.kept_services import Services
from tests.e2e.support.processes import NotReadyError, free_port, program
from tests.e2e.support.replicas import VALKEY_OPTIONS, Replicas, replicas
from tests.e2e.support.seaweedfs import SeaweedFS, seaweedfs
from tests.e2e.support.service import Serving, serving
from tests.e2e.support.valkey import Valkey, valkey

_SHOWN = 16 * 1024
"""Bytes of each log."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("real"):
        missing = [part for part in mark.args if not program(part)]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        if "dockerd" in mark.args and (reason := real_docker.why_no_dockerd()):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """If a test fails, adds what the programs logged during it to the report: rare failures are hard to repeat."""
    folder = item.funcargs.get("workplace") if isinstance(item, pytest.Function) else None
    before = {log: log.stat().st_size for log in folder.rglob("*.log")} if isinstance(folder, Path) else {}
    try:
        return (yield)
    except BaseException:
        for log in sorted(folder.rglob("*.log")) if isinstance(folder, Path) else ():
            if written := log.read_bytes()[before.get(log, 0) :]:
                item.add_report_section("call", log.name, written[-_SHOWN:].decode(errors="replace"))
        raise


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the configurations and logs of the session."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A shared index with a database for each mirror of a test file."""
    with valkey(tmp_path_factory.mktemp("index"), *VALKEY_OPTIONS) as running:
        yield running


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A shared store."""
    with seaweedfs(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def pair(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> Iterator[Replicas]:
    """Two replicas before the upstream of the test file."""
    with replicas(serve, tmp_path, upstream, index, store) as found:
        yield found
    upstream.control()


@pytest.fixture(scope="session")
def authority(workplace: Path) -> PrivateAuthority:
    return make_authority(workplace)


@pytest.fixture(scope="session")
def signer(workplace: Path) -> KeyPair:
    return make_signer(workplace)


@pytest.fixture(scope="session")
def content(workplace: Path) -> upstreams.Content:
    folder = workplace / "content"
    folder.mkdir()
    return upstreams.make_content(folder, workplace)


@pytest.fixture(scope="session")
def open_registry(workplace: Path, content: upstreams.Content) -> Iterator[Registry]:
    with docker_registry(workplace, content.folder, "open") as registry:
        yield registry


@pytest.fixture(scope="session")
def token_registry(workplace: Path, content: upstreams.Content, signer: KeyPair) -> Iterator[upstreams.TokenUpstream]:
    with upstreams.token_upstream(workplace, content, signer) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def htpasswd_registry(workplace: Path, content: upstreams.Content) -> Iterator[Registry]:
    with upstreams.htpasswd_upstream(workplace, content) as registry:
        yield registry


@pytest.fixture(scope="session")
def tls_registry(workplace: Path, content: upstreams.Content, authority: PrivateAuthority) -> Iterator[Registry]:
    with upstreams.tls_upstream(workplace, content, authority) as registry:
        yield registry


@pytest.fixture(scope="session")
def redirecting_registry(workplace: Path, content: upstreams.Content) -> Iterator[upstreams.RedirectingUpstream]:
    with upstreams.redirecting_upstream(workplace, content) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def spied_open(workplace: Path, open_registry: Registry) -> Iterator[upstreams.LoggedUpstream]:
    with upstreams.spied(workplace, open_registry) as spy:
        yield spy


@pytest.fixture(scope="session")
def spied_token(workplace: Path, token_registry: upstreams.TokenUpstream) -> Iterator[upstreams.LoggedUpstream]:
    with upstreams.spied(workplace, token_registry) as spy:
        yield spy


@pytest.fixture(scope="session")
def spied_htpasswd(workplace: Path, htpasswd_registry: Registry) -> Iterator[upstreams.LoggedUpstream]:
    with upstreams.spied(workplace, htpasswd_registry) as spy:
        yield spy


@pytest.fixture(scope="session")
def mirror_port() -> int:
    """The port of dockerd's mirror. One daemon serves all tests, so the service of each test listens on this port."""
    return free_port()


@pytest.fixture(scope="session")
def daemon(workplace: Path, mirror_port: int) -> Iterator[real_docker.Dockerd]:
    log = workplace / "dockerd.log"
    with ExitStack() as stack:
        try:
            running = stack.enter_context(real_docker.dockerd(f"http://127.0.0.1:{mirror_port}", log))
        except NotReadyError as reason:
            # Root alone is not enough: dockerd does not run in a chroot without cgroups. The service is not at fault.
            pytest.skip(f"dockerd does not start here: {reason}")
        yield running


@pytest.fixture
def docker(daemon: real_docker.Dockerd, tmp_path: Path) -> Iterator[real_docker.Docker]:
    client = real_docker.Docker(daemon.socket, tmp_path / "docker-client")
    yield client
    client.forget_images()


@pytest.fixture(scope="session")
def _containerd(workplace: Path) -> Iterator[real_containerd.Containerd]:
    with ExitStack() as stack:
        try:
            client = stack.enter_context(real_containerd.containerd(workplace / "containerd.log"))
        except NotReadyError as reason:
            pytest.skip(f"containerd does not start here: {reason}")  # like dockerd, it needs root
        yield client


@pytest.fixture
def ctr(_containerd: real_containerd.Containerd) -> Iterator[real_containerd.Containerd]:
    yield _containerd
    _containerd.forget()


@pytest.fixture(scope="session")
def serve(workplace: Path) -> Serving:
    """`with serve(SETTING="value", ...) as proxy:` starts the service for this test only."""
    return partial(serving, workplace)


@pytest.fixture(scope="session")
def shared(workplace: Path) -> Iterator[Serving]:
    """Like `serve`, but a service that an earlier test started with the same settings is used again."""
    services = Services(workplace)
    yield services
    services.close()


@pytest.fixture(scope="session")
def mirror(workplace: Path, mirror_port: int) -> Iterator[Serving]:
    """Like `shared`, on the port of dockerd's mirror."""
    services = Services(workplace, mirror_port)
    yield services
    services.close()


@pytest.fixture
def podman() -> Iterator[clients.Podman]:
    with clients.temporary_home() as home:
        yield clients.Podman(home)


@pytest.fixture
def buildah() -> Iterator[clients.Buildah]:
    with clients.temporary_home() as home:
        yield clients.Buildah(home)


@pytest.fixture
def skopeo(tmp_path: Path) -> clients.Skopeo:
    return clients.Skopeo(tmp_path / "skopeo")
