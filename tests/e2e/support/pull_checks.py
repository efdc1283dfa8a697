"""Checks of a complete pull: in docker's store and in the log of the registry."""

from collections.abc import Sequence

from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Request
from tests.e2e.support.images import Image
from tests.e2e.support.upstreams import Content


def mirror_name(name: str) -> str:
    """The name that a user types for the repository; docker adds `library/`."""
    return name.removeprefix("library/")


def pull_whole(docker: Docker, content: Content, name: str, host: str = "") -> None:
    """Pull the image and check that docker's store has each layer."""
    typed = f"{host}/{name}" if host else mirror_name(name)
    docker.pull(f"{typed}:1").ok()
    image = content.images[name]
    assert docker.diff_ids(f"{typed}:1") == list(image.diff_ids)
    assert docker.repo_digests(f"{typed}:1") == [f"{typed}@{image.manifest.digest}"]


def assert_all_fetched(
    requests: Sequence[Request], name: str, image: Image, *, status: int = 200, logs_in: bool = False
) -> None:
    """Check that the log has the manifest of the image and each of its blobs once, and no other repository.

    `logs_in`: the service uses its own upstream login, so its first requests may be answered with 401.
    """
    if logs_in:
        requests = [request for request in requests if (request.status, request.user) != (401, None)]
    blobs = [request for request in requests if "/blobs/" in request.path and request.method == "GET"]
    wanted = sorted(f"/v2/{name}/blobs/{digest}" for digest in image.blob_digests)
    assert sorted(request.path for request in blobs) == wanted
    assert {request.status for request in blobs} == {status}
    manifests = {request.path for request in requests if "/manifests/" in request.path and request.status == 200}
    assert manifests
    assert manifests <= {f"/v2/{name}/manifests/1", f"/v2/{name}/manifests/{image.manifest.digest}"}


def users(requests: Sequence[Request]) -> set[str | None]:
    """The users of the accepted requests."""
    return {request.user for request in requests if request.status == 200}
