"""A client pulls through an installed service, which then ends as it should."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.support.cached_mirror import NAME, FaultyUpstream
from tests.e2e.support.clients import Skopeo
from tests.e2e.support.images import Image
from tests.e2e.support.plain_http import answers, fetch
from tests.e2e.support.processes import Process, running, wait_until


def check_page(url: str) -> None:
    """The page and its style sheets and scripts are part of the installation."""
    page = fetch("GET", f"{url}/")
    assert page.status == 200
    assets = set(re.findall(r'"(/static/[^"]+)"', page.body.decode()))
    assert len(assets) > 3
    assert {asset for asset in assets if fetch("GET", url + asset).status != 200} == set()


def check_service(
    argv: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    log: Path,
    upstream: FaultyUpstream,
    image: Image,
    skopeo: Skopeo,
) -> None:
    """Start the service, pull the image with skopeo, reload the settings with SIGHUP, pull again without the upstream,
    and stop the service with SIGTERM.
    """
    upstream.push(image, "latest")
    url = f"http://127.0.0.1:{port}"
    reference = f"127.0.0.1:{port}/{NAME}:latest"
    process = Process(argv, log, environment)
    with running(process, lambda: answers(f"{url}/readyz"), 180):  # under qemu, Python starts slowly
        check_page(url)
        skopeo.copy(reference).ok()
        assert skopeo.copied_digests() == image.blob_digests | {image.manifest.digest}
        os.kill(process.pid, signal.SIGHUP)
        assert wait_until(lambda: "settings " in "\n".join(process.log_lines()), 30), process.tail()
        mark = upstream.mark()
        skopeo.copy(reference).ok()
        assert [one["path"] for one in upstream.log(mark) if "/blobs/" in one["path"]] == []
    assert process.returncode == 0, process.tail()
