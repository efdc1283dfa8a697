"""The cache gives a caller only content that the upstream would give to the same caller."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import KIB, CacheFolder, settle
from tests.e2e.support.docker_registry import Request
from tests.e2e.support.draining_clients import Drain
from tests.e2e.support.images import OCI_MANIFEST, Blob, Image
from tests.e2e.support.machines import KINDS, MACHINES, lose_index, on
from tests.e2e.support.plain_http import UpstreamResponse, send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import BOBS, PRIVATE, PUBLIC, Content, LoggedUpstream, basic, gated

pytestmark = pytest.mark.real("docker-registry")

ACCEPT = {"Accept": OCI_MANIFEST}
REFUSED = (401, 403, 404)


@dataclass(frozen=True)
class Service:
    """A mirror whose cache has the complete private image of alice. `has_lost_index`: it had a Valkey."""

    proxy: Proxy
    upstream: LoggedUpstream
    image: Image
    has_lost_index: bool = False

    def bearer(self, name: str, account: str | None) -> str:
        return f"Bearer {self.proxy.token(f'repository:{name}:pull', account)}"

    def strangers(self, name: str = PRIVATE) -> dict[str, str | None]:
        """The callers that may not read alice's private content, each with its Authorization for the repository."""
        return {
            "bob": self.bearer(name, "bob"),
            "bob without a token": basic("bob"),
            "anonymous": self.bearer(name, None),
            "anonymous without a token": None,
            "an invalid token": "Bearer abc",
        }

    def paths(self) -> dict[str, Blob]:
        found = {f"/v2/{PRIVATE}/manifests/{ref}": self.image.manifest for ref in ("1", self.image.manifest.digest)}
        return found | {f"/v2/{PRIVATE}/blobs/{blob.digest}": blob for blob in self.image.blobs}


@pytest.fixture(scope="module", params=KINDS)
def service(
    request: pytest.FixtureRequest, serve: Serving, spied_token: LoggedUpstream, content: Content, workplace: Path
) -> Iterator[Service]:
    with on(request.param, serve, workplace)(**spied_token.settings) as proxy:
        has_lost_index = request.param == "two replicas without Valkey"
        found = Service(proxy, spied_token, content.images[PRIVATE], has_lost_index)
        alice = found.bearer(PRIVATE, "alice")
        for path, blob in found.paths().items():
            assert proxy.get(path, alice, **ACCEPT).body == blob.content
        settle()
        lose_index(request.param, proxy)
        yield found


def ways(blob: Blob) -> list[tuple[str, dict[str, str]]]:
    known, part = {"If-None-Match": f'"{blob.digest}"'}, {"Range": "bytes=0-9"}
    return [("GET", ACCEPT), ("HEAD", ACCEPT), ("GET", ACCEPT | known), ("GET", ACCEPT | part)]


def assert_refused(answer: UpstreamResponse, blob: Blob, what: str) -> None:
    assert answer.status in REFUSED, (what, answer.status)
    assert blob.content[:10] not in answer.body, what
    for header in ("Docker-Content-Digest", "ETag", "Content-Range"):
        assert header not in answer.headers, what
    assert answer.headers["Content-Length"] != str(len(blob.content)), what


def content_gets(requests: list[Request]) -> list[Request]:
    return [one for one in requests if one.method == "GET" and one.status in (200, 206)]


def test_other_callers_are_refused_private_content_that_alice_pulled(service: Service) -> None:
    tried = 0
    strangers = service.strangers()
    with service.proxy.connection_to_each_worker() as connections:
        for path, blob in service.paths().items():
            for who, authorization in strangers.items():
                credentials = {"Authorization": authorization} if authorization else {}
                for connection in connections:
                    for method, headers in ways(blob):
                        answer = send(connection, method, path, headers | credentials)
                        assert_refused(answer, blob, f"{method} {path} with {headers} as {who}")
                        tried += 1
        assert tried == 6 * 5 * len(connections) * 4


def test_alice_gets_her_cached_content_without_another_fetch(service: Service) -> None:
    since = service.upstream.mark()
    with service.proxy.connection_to_each_worker() as connections:
        for connection in connections:
            for authorization in (service.bearer(PRIVATE, "alice"), service.bearer(PRIVATE, "alice")):
                headers = {**ACCEPT, "Authorization": authorization}
                for path, blob in service.paths().items():
                    assert send(connection, "GET", path, headers).body == blob.content
                    assert send(connection, "HEAD", path, headers).status == 200
    fetched = Counter(one.path for one in content_gets(service.upstream.content_requests(since)))
    # Without its index, the mirror does not know that alice's class was given the blob. She proves her permission with
    # the request that a blob would need that is not cached; its answer is not read.
    assert max(fetched.values(), default=0) <= (len(connections) if service.has_lost_index else 0)


def test_refusals_of_other_callers_do_not_affect_alice(service: Service) -> None:
    layer = service.image.layers[0]
    path, alice = f"/v2/{PRIVATE}/blobs/{layer.digest}", service.bearer(PRIVATE, "alice")
    for authorization in service.strangers().values():
        assert service.proxy.get(path, authorization).status in REFUSED
        assert service.proxy.get(path, alice).body == layer.content


@pytest.mark.parametrize("elsewhere", [PUBLIC, BOBS])
def test_a_cached_digest_is_refused_in_a_repository_that_does_not_contain_it(service: Service, elsewhere: str) -> None:
    callers = {**service.strangers(elsewhere), "alice": service.bearer(elsewhere, "alice")}
    things = [("blobs", service.image.layers[0]), ("manifests", service.image.manifest)]
    with service.proxy.connection_to_each_worker() as connections:
        for kind, blob in things:
            for who, authorization in callers.items():
                credentials = {"Authorization": authorization} if authorization else {}
                for connection in connections:
                    for method, headers in ways(blob):
                        path = f"/v2/{elsewhere}/{kind}/{blob.digest}"
                        answer = send(connection, method, path, headers | credentials)
                        assert_refused(answer, blob, f"{method} {path} with {headers} as {who}")


def test_referrers_are_fetched_from_the_upstream_for_each_caller(service: Service) -> None:
    path = f"/v2/{PRIVATE}/referrers/{service.image.manifest.digest}"
    assert service.proxy.get(path, service.bearer(PRIVATE, "alice")).status == 200
    bobs_token, anonymous_token = service.bearer(PRIVATE, "bob"), service.bearer(PRIVATE, None)
    with service.proxy.connection_to_each_worker() as connections:
        for connection in connections:
            assert send(connection, "GET", path).status == 401
            for user, authorization in (("bob", bobs_token), ("", anonymous_token)):
                since = service.upstream.mark()
                answer = send(connection, "GET", path, {"Authorization": authorization})
                # This upstream answers every caller, so a caller with an answer must have asked it itself.
                asked = [one.user for one in service.upstream.content_requests(since) if one.path == path]
                assert answer.status in REFUSED or (answer.status == 200 and asked == [user])


@MACHINES
def test_other_callers_cannot_join_the_fill_that_alice_started(
    serve: Serving, spied_token: LoggedUpstream, content: Content, tmp_path: Path, machines: str
) -> None:
    layer = content.images[PRIVATE].layers[1]
    path, cache = f"/v2/{PRIVATE}/blobs/{layer.digest}", CacheFolder(tmp_path / "cache")
    with gated(tmp_path, spied_token, 256 * KIB) as (url, gate):
        settings = {**spied_token.settings, "UPSTREAM_REGISTRY": url, "CACHE_DIR": str(cache.path)}
        with on(machines, serve, tmp_path)(**settings) as proxy, proxy.connection_to_each_worker() as connections:
            service = Service(proxy, spied_token, content.images[PRIVATE])
            strangers = service.strangers()
            alice = f"Authorization: {service.bearer(PRIVATE, 'alice')}"
            since = spied_token.mark()
            drains = [Drain(proxy.port, path, [alice], digest=True) for _ in range(3)]
            drains[0].start()
            assert wait_until(lambda: content_gets(spied_token.content_requests(since)) != [], 15)
            lose_index(machines, proxy)
            for drain in drains[1:]:
                drain.start()
            for connection in connections:
                for who, authorization in strangers.items():
                    credentials = {"Authorization": authorization} if authorization else {}
                    for method, headers in ways(layer):
                        answer = send(connection, method, path, headers | credentials)
                        assert_refused(answer, layer, f"{method} with {headers} as {who}")
            assert not cache.file(layer.digest).exists(), "the requests above were sent during the fill"
            gate.touch()
            for drain in drains:
                drain.join()
        assert [(drain.status, drain.digest) for drain in drains] == [(200, layer.digest)] * 3
    assert [one.user for one in content_gets(spied_token.content_requests(since))] == ["alice"]
