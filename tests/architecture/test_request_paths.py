"""How many files and functions a reader follows from the socket to the bytes.

The tracer counts the functions of this project that may wait (coroutines, asynchronous generators, and the methods that
`in_thread` runs in a thread) and that run for one request, in its own task or in the download's. They are the steps
from the socket to the bytes; the values that they pass, and the bookkeeping that no client waits for, are not counted.
`pytest -s tests/architecture/test_request_paths.py` prints the steps.
"""

import asyncio
import hashlib
import inspect
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, Self

from entrypoints.wiring.container import Container, open_container
from tests.architecture.sources import PACKAGES, ROOT
from tests.entrypoints.conftest import Start, start, upstream  # noqa: F401 - fixtures

BLOB = b"x" * 300_000
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{'0' * 64}", "size": 2}
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": CONFIG, "layers": []}).encode()
WAITS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry(BaseHTTPRequestHandler):
    """An upstream that has one manifest and one blob in every repository, for everyone."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        if "/blobs/" in self.path:
            body, media_type = BLOB, "application/octet-stream"
        elif "/manifests/" in self.path:
            body, media_type = MANIFEST, MANIFEST_TYPE
        else:
            body, media_type = b"{}", "application/json"
        self.send_response(200)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Docker-Content-Digest", digest_of(body))
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's


@contextmanager
def registry() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Steps:
    """The functions that may wait and were entered while the context was open, by file, without those of background
    tasks and of the upkeep, which runs at its own times.
    """

    def __init__(self, parts: Container) -> None:
        self.of_file: dict[str, set[str]] = {}
        self._others = (parts.background()._tasks, parts.upkeep()._tasks)

    def __enter__(self) -> Self:
        sys.setprofile(self._entered)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _entered(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or any(asyncio.current_task() in tasks for tasks in self._others):
            return
        code = frame.f_code
        if is_thread_call := code.co_qualname == "in_thread.<locals>.run":
            code = inspect.unwrap(frame.f_locals["method"]).__code__
        if is_thread_call or code.co_flags & WAITS:
            file = Path(code.co_filename)
            if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in PACKAGES:
                self.of_file.setdefault(str(file.relative_to(ROOT)), set()).add(code.co_qualname)

    def counted(self) -> tuple[int, int]:
        """The number of files and of functions."""
        for file, names in sorted(self.of_file.items()):
            print(f"{file}: {' '.join(sorted(names))}")
        print(counts := (len(self.of_file), sum(map(len, self.of_file.values()))))
        return counts


async def test_a_cold_blob_and_a_warm_tag_pass_through_few_files(start: Start, tmp_path: Path) -> None:  # noqa: F811
    with registry() as url:
        settings = {"upstream_registry": url, "upstream_identity": "anonymous", "cache_dir": str(tmp_path / "cache")}
        service = await start(parts=open_container, **settings)
        assert (await service.client.get("/v2/a/b/manifests/1")).status_code == 200
        with Steps(service.parts) as cold:
            answer = await service.client.get(f"/v2/a/b/blobs/{digest_of(BLOB)}")
        assert (answer.status_code, answer.content) == (200, BLOB)
        await asyncio.sleep(0.3)  # until the background work of the first request has ended
        with Steps(service.parts) as warm:
            # With the same Accept header the answer would come from the response cache.
            answer = await service.client.get("/v2/a/b/manifests/1", headers={"Accept": "*/*"})
        assert (answer.status_code, answer.content) == (200, MANIFEST)
    files, functions = cold.counted()
    assert files <= 26
    # A blob is fetched in parts, each with its place, its space and its own end, and from one of several origins.
    assert functions <= 52
    files, functions = warm.counted()
    assert files <= 15
    assert functions <= 20
