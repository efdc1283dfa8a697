"""A real SeaweedFS as the shared store, with the S3 API on loopback."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.e2e.support.processes import Process, free_port

_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_KEY_ID, _SECRET = "e2e-key-id", "e2e-secret-access-key"
_BUCKET = "replicas"


@dataclass
class SeaweedFS:
    """A running server. `process` is another one after `restart`."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        names = [f"{name}{kind}" for name in _PORTS for kind in ("", ".grpc")]
        self.ports = self.ports or {name: free_port() for name in names}
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "e2e",
            "credentials": [{"accessKey": _KEY_ID, "secretKey": _SECRET}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def port(self) -> int:
        """The port of the S3 API."""
        return self.ports["s3.port"]

    @property
    def bucket(self) -> str:
        return _BUCKET

    @property
    def url(self) -> str:
        """The value of SHARED_STORE."""
        return f"s3://{_BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which obstore reaches the server."""
        return self.environment_through(self.port)

    def environment_through(self, port: int) -> dict[str, str]:
        """The same through a gate on another port."""
        return {
            "AWS_ACCESS_KEY_ID": _KEY_ID,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Start the process. Returns when objects can be written."""
        argv = [
            # The program of the wheel, in the environment of the tests
            str(Path(sys.prefix) / "bin" / "weed"), "-logtostderr=true", "server",
            f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{name}={port}" for name, port in self.ports.items()),
            "-filer", "-s3", f"-s3.config={self.folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64", "-volume.max=64", "-volume.preStopSeconds=0",
            # A single master needs no election, which takes seconds. The server would send statistics to its authors.
            "-master.peers=none", "-master.telemetry=false", "-volume.minFreeSpace=1",
        ]  # fmt: skip
        self.process = Process(argv, self.folder / "seaweedfs.log")
        self.process.wait_ready(self._takes_objects, 60)

    def restart(self) -> None:
        """Kill the process, and start another one with the same content and the same ports."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """Kill the process: it needs more than ten seconds to end by itself. Remove the sockets that it leaves."""
        self.process.kill()
        for port in self.ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - the server does not ask for a folder
                socket.unlink(missing_ok=True)

    def _takes_objects(self) -> bool:
        """Whether an object can be written. The first one waits for its volume."""
        values = {name.lower(): value for name, value in self.environment.items()}
        options = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
        try:
            S3Store(_BUCKET, config=values, retry_config=options).put("ready", b"x", use_multipart=False)
        except BaseError:
            return False
        return True


@contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """Starts the server in this folder, which also gets its log."""
    server = SeaweedFS(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
