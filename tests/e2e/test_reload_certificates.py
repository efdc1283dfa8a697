"""The service uses a renewed certificate after SIGHUP, without a restart."""

import contextlib
import os
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.support.certificates import KeyPair, make_authority
from tests.e2e.support.plain_http import answers, connect, send
from tests.e2e.support.processes import Process, free_port, wait_until
from tests.e2e.support.service import Proxy, command, environment


@dataclass
class Mirror:
    """A mirror with TLS, and its certificate files."""

    proxy: Proxy
    files: KeyPair
    old: ssl.SSLContext
    new: ssl.SSLContext
    renewed: KeyPair

    def shows(self, trusting: ssl.SSLContext) -> bool:
        """Whether both workers use a certificate that this client trusts."""
        try:
            return len(self.workers(trusting)) == 2
        except OSError:
            return False

    def workers(self, trusting: ssl.SSLContext) -> set[int]:
        found: set[int] = set()
        for _ in range(40):
            with contextlib.closing(connect(f"https://{self.proxy.host}", trusting)) as connection:
                assert send(connection, "GET", "/livez").status == 200
                found.add(self.proxy.worker_of(connection))
        return found


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    (tmp_path / "new").mkdir()
    old, new = make_authority(tmp_path), make_authority(tmp_path / "new")
    port = free_port()
    settings = {
        "UPSTREAM_REGISTRY": "http://127.0.0.1:9",
        "TLS_CERT": str(old.server.certificate), "TLS_KEY": str(old.server.key),
    }  # fmt: skip
    process = Process(command("serve"), tmp_path / "log", environment(port, settings))
    trusting = [ssl.create_default_context(cafile=one.certificate) for one in (old, new)]
    try:
        process.wait_ready(lambda: answers(f"https://127.0.0.1:{port}/livez", tls=trusting[0]))
        found = Mirror(Proxy(process, port), old.server, *trusting, new.server)
        assert wait_until(lambda: found.shows(found.old), 10, 0.1)
        yield found
    finally:
        process.stop()


def test_a_renewed_certificate_is_used_for_new_connections_after_a_reload(mirror: Mirror) -> None:
    before = connect(f"https://{mirror.proxy.host}", mirror.old)
    assert send(before, "GET", "/livez").status == 200
    mirror.files.certificate.write_bytes(mirror.renewed.certificate.read_bytes())
    assert "TLS_CERT, TLS_KEY" in mirror.proxy.reload()[0], "the key does not belong to the certificate yet"
    assert mirror.shows(mirror.old)
    mirror.files.key.write_bytes(mirror.renewed.key.read_bytes())
    assert "settings reloaded; changed: none" in mirror.proxy.reload()[0]
    assert mirror.shows(mirror.new)
    assert not mirror.shows(mirror.old)
    assert send(before, "GET", "/livez").status == 200, "an open connection stays open"
    before.close()


def test_a_replaced_worker_uses_the_renewed_certificate_without_reading_the_file(mirror: Mirror) -> None:
    mirror.files.certificate.write_bytes(mirror.renewed.certificate.read_bytes())
    mirror.files.key.write_bytes(mirror.renewed.key.read_bytes())
    mirror.proxy.reload()
    mirror.files.key.unlink()
    killed = mirror.workers(mirror.new)
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    assert wait_until(lambda: mirror.shows(mirror.new), 15, 0.2)
    assert not mirror.workers(mirror.new) & killed
