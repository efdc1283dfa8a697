"""The services of deploy/compose.yaml work together: their commands and health checks run as processes on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.support.cached_mirror import MIB, FaultyUpstream, Made, Pulled, faulty_upstream, pull
from tests.e2e.support.processes import SEARCH_PATH, Process, free_port, wait_until
from tests.e2e.support.service import Proxy, serving
from tests.e2e.support.valkey import server_program

pytestmark = [pytest.mark.real("nginx", "wget"), pytest.mark.slow]

DEPLOY = Path(__file__).parents[2] / "deploy"
REPLICAS = ("mirror-1", "mirror-2")
STORE_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
VALKEY_CLI = """\
#!{python}
import os, redis, sys
client = redis.Redis(port=int(sys.argv[2]), password=os.environ["REDISCLI_AUTH"], socket_timeout=2)
print("PONG" if sys.argv[3] == "ping" and client.ping() else "")
"""
"""valkey-cli is in the image, but not in the package of the tests."""


@dataclass
class Composition:
    """The services as processes. Host names of other containers become loopback ports, and paths become folders."""

    folder: Path
    services: dict[str, Any]
    secrets: dict[str, Any]
    upstream: FaultyUpstream
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    replicas: dict[str, Proxy] = field(default_factory=dict)
    store_ports: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        subprocess.run([DEPLOY / "make-secrets", self.folder / "secrets"], check=True, timeout=20)
        self.ports = {name: free_port() for name in (*REPLICAS, "balancer", "valkey", "store")}
        programs = self.folder / "programs"
        programs.mkdir()
        (programs / "valkey-server").symlink_to(server_program())
        (programs / "valkey-cli").write_text(VALKEY_CLI.format(python=sys.executable))
        (programs / "valkey-cli").chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.prefix) / "bin"), SEARCH_PATH])
        self.environment = {**os.environ, "PATH": path}

    def here(self, text: str) -> str:
        """The text with the paths, names and ports of this machine."""
        for name, one in self.secrets.items():
            text = text.replace(f"/run/secrets/{name}", str(self.folder / "secrets" / Path(one["file"]).name))
        ports = {
            "mirror-1:5000": "mirror-1",
            "mirror-2:5000": "mirror-2",
            "valkey:6379": "valkey",
            "store:8333": "store",
        }
        for address, name in ports.items():
            text = text.replace(address, f"127.0.0.1:{self.ports[name]}")
        valkey, balancer = self.ports["valkey"], self.ports["balancer"]
        for old, new in {
            "$$": "$",
            "0.0.0.0": "127.0.0.1",
            "-p 6379": f"-p {valkey}",
            "--port 6379": f"--port {valkey}",
            "--dir /tmp": f"--dir {self.folder}",
            "127.0.0.1:8333": f"127.0.0.1:{self.ports['store']}",
            "-dir=/data": f"-dir={self.folder / 'data'}",
            "-ip=store": "-ip=127.0.0.1",
            "127.0.0.1:8080": f"127.0.0.1:{balancer}",
            "listen 8080": f"listen 127.0.0.1:{balancer}",
            "172.30.86.0/24": "127.0.0.0/8",
            "https://registry-1.docker.io": self.upstream.url,
        }.items():
            text = text.replace(old, new)
        return text

    def is_healthy(self, name: str) -> bool:
        kind, *words = map(self.here, self.services[name]["healthcheck"]["test"])
        argv = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        done = subprocess.run(argv, env=self.environment, timeout=20, check=False, capture_output=True)
        return done.returncode == 0

    def start(self, name: str, argv: list[str]) -> None:
        self.processes[name] = Process(argv, self.folder / f"{name}.log", self.environment)
        self.processes[name].wait_ready(lambda: self.is_healthy(name), 60)

    def start_valkey(self) -> None:
        self.start("valkey", [self.here(word) for word in self.services["valkey"]["command"]])

    def start_store(self) -> None:
        (self.folder / "data").mkdir()
        words = [*self.services["store"]["entrypoint"], *self.services["store"]["command"]]
        ports = {f"{name}{kind}": free_port() for name in STORE_PORTS for kind in ("", ".grpc")}
        ports["s3.port"] = self.ports["store"]
        self.store_ports = list(ports.values())
        # In its container, the server can use its usual ports. The last flag of a name counts.
        own = [f"-{name}={port}" for name, port in ports.items()]
        self.start("store", [*map(self.here, words), *own, "-volume.preStopSeconds=0", "-volume.minFreeSpace=1"])

    def start_balancer(self) -> None:
        text = self.here((DEPLOY / "nginx.conf").read_text()).replace("/tmp/", f"{self.folder}/")  # noqa: S108
        (self.folder / "nginx.conf").write_text(text)
        self.start("balancer", ["nginx", "-c", str(self.folder / "nginx.conf"), "-g", "daemon off;"])

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
        for socket in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108 - the server does not ask for a folder
            if any(socket.name.endswith(f"-{port}.sock") for port in self.store_ports):
                socket.unlink(missing_ok=True)

    def settings(self, name: str) -> dict[str, str]:
        given = dict(line.split("=") for line in (self.folder / "secrets" / "store.env").read_text().split())
        here = {key: self.here(value) for key, value in self.services[name]["environment"].items()}
        # In their containers, the replicas can use the same port.
        return {**given, **here, "METRICS_PORT": str(free_port())}

    def pull(self, made: Made) -> Pulled:
        """As a client, at the load balancer."""
        return pull(self.ports["balancer"], made.path)

    def bodies(self, made: Made) -> int:
        """How many answers with bytes of this blob the upstream has sent."""
        return len(self.upstream.gets(made.path))


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "compose-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def composition(workplace: Path, upstream: FaultyUpstream) -> Iterator[Composition]:
    folder = workplace / "compose"
    folder.mkdir()
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    found = Composition(folder, document["services"], document["secrets"], upstream)
    with ExitStack() as stack:
        stack.callback(found.kill)
        found.start_valkey()
        found.start_store()
        for name in REPLICAS:
            served = serving(folder, found.ports[name], **found.settings(name), LOG_FORMAT="json")
            found.replicas[name] = stack.enter_context(served)
        found.start_balancer()
        yield found


def gives(pulled: Pulled, made: Made) -> bool:
    return (pulled.status, pulled.whole, pulled.body) == (200, True, made.content)


def test_all_services_are_healthy(composition: Composition) -> None:
    assert [name for name in ("valkey", "store", "balancer") if not composition.is_healthy(name)] == []


def test_clients_of_the_load_balancer_use_both_replicas_and_cost_one_blob(composition: Composition) -> None:
    made = composition.upstream.blob(8 * MIB)
    marks = {name: replica.process.mark() for name, replica in composition.replicas.items()}
    with ThreadPoolExecutor(20) as pool:
        pulled = list(pool.map(lambda _: composition.pull(made), range(20)))
    assert all(gives(one, made) for one in pulled)
    used = [name for name, replica in composition.replicas.items() if replica.accesses(marks[name])]
    assert used == list(REPLICAS)
    assert composition.bodies(made) == 1


def test_a_replica_has_what_another_one_has_fetched(composition: Composition) -> None:
    made = composition.upstream.blob(3 * MIB)
    first, second = (composition.replicas[name] for name in REPLICAS)
    assert gives(pull(first.port, made.path), made)
    # The second replica reads the parts that the first one has published, or those that it still publishes.
    assert gives(pull(second.port, made.path), made)
    assert composition.bodies(made) == 1


def test_pulls_go_on_without_valkey(composition: Composition) -> None:
    made = composition.upstream.blob(MIB)
    composition.processes["valkey"].kill()
    assert not composition.is_healthy("valkey")
    assert gives(composition.pull(made), made)
    composition.start_valkey()
    assert composition.is_healthy("valkey")


def test_pulls_go_on_without_the_store(composition: Composition) -> None:
    made = composition.upstream.blob(3 * MIB)
    composition.processes["store"].kill()
    assert not composition.is_healthy("store")
    assert gives(composition.pull(made), made)


def test_pulls_go_on_without_a_replica(composition: Composition) -> None:
    made = composition.upstream.blob(MIB)
    composition.replicas["mirror-1"].process.kill()
    assert wait_until(lambda: composition.is_healthy("balancer"), 10)
    assert all(gives(composition.pull(made), made) for _ in range(4))
