"""The ping and manifests, over HTTP."""

import json
from dataclasses import replace

import pytest

from application.ports.upstream import ResourceKind
from domain.digest import Digest
from domain.manifests import INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPES
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic
from tests.fakes.upstream import IMAGE, FakeUpstream

# Unusual spaces and order: serialising it again would change its bytes.
CONTENT = b'{"schemaVersion" : 2,\n  "layers": [],  "config": {}}'
DIGEST = str(Digest.of(CONTENT))


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", CONTENT)
    return upstream


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ping_answers_without_any_redirect(start: Start, path: str, method: str) -> None:
    service = await start()
    token = await service.token()
    answer = await service.ask(f"{method} {path} HTTP/1.1\nHost: mirror.test\nAuthorization: Bearer {token}")
    assert (answer.status, answer.get("content-type")) == (200, "application/json")
    assert (answer.get("content-length"), answer.body) == ("2", b"{}" if method == "GET" else b"")
    assert answer.get("docker-distribution-api-version") == "registry/2.0"


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ping_without_token_is_challenged(start: Start, path: str, method: str) -> None:
    service = await start()
    answer = await service.ask(f"{method} {path} HTTP/1.1\nHost: mirror.test")
    assert answer.status == 401
    assert answer.all("www-authenticate") == ['Bearer realm="http://mirror.test/v2/auth",service="docker-image-proxy"']
    assert answer.get("docker-distribution-api-version") == "registry/2.0"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_manifest_by_tag_has_exact_headers(start: Start, method: str) -> None:
    service = await start()
    answer = await service.ask(f"{method} /v2/team/app/manifests/v1 HTTP/1.1\nHost: a\nAccept-Encoding: gzip")
    ours = {name: value for name, value in answer.headers if name not in {"connection", "alt-svc", "x-request-id"}}
    assert answer.status == 200
    assert ours == {
        "content-type": IMAGE,
        "content-length": str(len(CONTENT)),
        "docker-content-digest": DIGEST,
        "etag": f'"{DIGEST}"',
        "vary": "Accept",
        "docker-distribution-api-version": "registry/2.0",
    }
    assert answer.body == (CONTENT if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_manifest_by_digest_does_not_vary(start: Start, method: str) -> None:
    service = await start()
    answer = await service.ask(f"{method} /v2/team/app/manifests/{DIGEST} HTTP/1.1\nHost: a")
    assert (answer.status, answer.get("docker-content-digest"), answer.get("vary")) == (200, DIGEST, None)


async def test_unknown_media_type_passes_untouched(start: Start, upstream: FakeUpstream) -> None:
    strange, content = "application/vnd.example.thing+json; version=3", b'{ "schemaVersion": 3 }'
    upstream.put_manifest("team/app", "odd", content, strange)
    answer = await (await start()).get("/v2/team/app/manifests/odd")
    assert (answer.headers["content-type"], answer.content) == (strange, content)


async def test_digest_by_sha512_is_served(start: Start, upstream: FakeUpstream) -> None:
    digest = str(Digest.of(CONTENT, "sha512"))
    upstream.manifests["team/app", digest] = (IMAGE, CONTENT)
    answer = await (await start()).get(f"/v2/team/app/manifests/{digest}")
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (200, digest)


async def test_names_of_any_depth_are_served(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    for name in ("a", "a/b/c/d/e", "manifests", "a/manifests/b/blobs/c/tags/list", "tags/list", "v2/v2", "auth"):
        upstream.put_manifest(name, "latest", CONTENT)
        answer = await service.get(f"/v2/{name}/manifests/latest")
        assert (answer.status_code, answer.content) == (200, CONTENT), name


async def test_missing_manifest_is_four_hundred_four(start: Start) -> None:
    answer = await (await start()).get("/v2/team/app/manifests/v2")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


async def test_wrong_content_is_no_answer(start: Start, upstream: FakeUpstream) -> None:
    upstream.alter = lambda answer: replace(answer, content=b'{"schemaVersion":3}')
    answer = await (await start()).get(f"/v2/team/app/manifests/{DIGEST}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (502, "UNAVAILABLE")


@pytest.mark.parametrize("path", ["/v2/team/app/manifests/v1", "/v2/team/app/tags/list", "/v2/_catalog"])
async def test_each_warning_of_the_upstream_is_a_line_of_its_own(
    start: Start, upstream: FakeUpstream, path: str
) -> None:
    warnings = ('299 - "soon gone, really"', '299 - "really"')
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, warnings=warnings))
    answer = await (await start()).ask(f"GET {path} HTTP/1.1\nHost: a")
    assert answer.all("warning") == list(warnings)


async def test_all_warnings_together_are_bounded(start: Start, upstream: FakeUpstream) -> None:
    warnings = tuple(f'299 - "{number:04}{"x" * 500}"' for number in range(20))
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, warnings=warnings))
    answer = await (await start()).ask("GET /v2/team/app/manifests/v1 HTTP/1.1\nHost: a")
    lines = answer.all("warning")
    assert lines == list(warnings[: len(lines)])
    assert 3500 < sum(map(len, lines)) <= 4096


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_known_manifest_is_not_sent_again(start: Start, method: str) -> None:
    service = await start()
    for tags in (f'"{DIGEST}"', DIGEST, f'W/"{DIGEST}"', f'"sha256:other", "{DIGEST}"', f'"x",W/"{DIGEST}"', "*"):
        answer = await service.ask(f"{method} /v2/team/app/manifests/v1 HTTP/1.1\nHost: a\nIf-None-Match: {tags}")
        assert (answer.status, answer.body, answer.get("content-length")) == (304, b"", None), tags
        assert (answer.get("etag"), answer.get("docker-content-digest")) == (f'"{DIGEST}"', DIGEST)
        assert (answer.get("vary"), answer.get("docker-distribution-api-version")) == ("Accept", "registry/2.0")


async def test_other_entity_tags_get_the_manifest(start: Start) -> None:
    service = await start()
    for condition in ('"sha256:other"', f'"{DIGEST}x"', '""'):
        answer = await service.get("/v2/team/app/manifests/v1", {"If-None-Match": condition})
        assert (answer.status_code, answer.content) == (200, CONTENT), condition


async def test_known_manifest_costs_no_upstream_get(start: Start, upstream: FakeUpstream) -> None:
    await (await start()).get("/v2/team/app/manifests/v1", {"If-None-Match": f'"{DIGEST}"'})
    assert [fetch.head for fetch in upstream.asked] == [True]


async def test_all_accept_lines_reach_the_upstream(start: Start, upstream: FakeUpstream) -> None:
    lines = [("Accept", IMAGE), ("Accept", f"{INDEX_MEDIA_TYPE};q=0.5, application/json"), ("Accept", "*/*")]
    await (await start()).get("/v2/team/app/manifests/v1", lines)
    assert upstream.asked[0].accept == (IMAGE, f"{INDEX_MEDIA_TYPE};q=0.5, application/json", "*/*")


async def test_open_accept_becomes_the_full_list(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    for line in ("", "\nAccept: */*", "\nAccept:", "\nAccept: */*\nAccept: */*"):
        await service.ask(f"GET /v2/team/app/manifests/v1 HTTP/1.1\nHost: a{line}")
        assert upstream.asked[-1].accept == (", ".join(MANIFEST_MEDIA_TYPES),), line


async def test_ns_query_stays_with_the_mirror(start: Start, upstream: FakeUpstream) -> None:
    answer = await (await start()).get("/v2/team/app/manifests/v1?ns=docker.io")
    assert answer.status_code == 200
    assert (upstream.asked[0].resource.kind, upstream.asked[0].resource.query) == (ResourceKind.MANIFEST, ())


MALFORMED = (
    ("/v2/Team/app/manifests/v1", "NAME_INVALID"),
    ("/v2/a//b/manifests/v1", "NAME_INVALID"),
    ("/v2/../manifests/v1", "NAME_INVALID"),
    ("/v2/a/%2e%2e/b/manifests/v1", "NAME_INVALID"),
    ("/v2/a%00/manifests/v1", "NAME_INVALID"),
    ("/v2/a%0d%0aX:1/manifests/v1", "NAME_INVALID"),
    ("/v2/a%252Fb/manifests/v1", "NAME_INVALID"),
    (f"/v2/{'a' * 256}/manifests/v1", "NAME_INVALID"),
)


ILL_FORMED_REFERENCES = (
    "-v1",
    "v1%0a",
    "v" * 129,
    "sha256:short",
    DIGEST.upper(),
    f"md5:{'0' * 32}",
    f"{DIGEST}%00",
    f"{DIGEST}0",
    "%2e%2e",
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_ill_formed_reference_is_an_unknown_manifest(start: Start, method: str) -> None:
    service = await start()
    for reference in ILL_FORMED_REFERENCES:
        answer = await service.ask(f"{method} /v2/a/manifests/{reference} HTTP/1.1\nHost: a")
        assert answer.status == 404, reference
        if method == "GET":
            assert json.loads(answer.body)["errors"][0]["code"] == "MANIFEST_UNKNOWN", reference
    assert service.upstream.asked == []


async def test_malformed_manifest_paths_reach_no_upstream(start: Start) -> None:
    service = await start()
    for path, code in MALFORMED:
        answer = await service.ask(f"GET {path} HTTP/1.1\nHost: a")
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, code), path
    assert service.upstream.asked == []


async def test_several_authorization_lines_are_refused(start: Start) -> None:
    service: Service = await start()
    lines = f"Authorization: {basic('a', 'b')}\nAuthorization: Bearer x"
    for path in ("/v2/", "/v2/team/app/manifests/v1", "/v2/_catalog", "/v2/auth"):
        answer = await service.ask(f"GET {path} HTTP/1.1\nHost: a\n{lines}")
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "UNSUPPORTED")
    assert service.upstream.asked == []


async def test_token_of_another_repository_is_refused(start: Start) -> None:
    service = await start(accounts=basic("ann", "pw").split()[1])
    token = await service.token("repository:team/other:pull", basic("ann", "pw"))
    answer = await service.get("/v2/team/app/manifests/v1", {"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        f'Bearer realm="http://127.0.0.1:{service.port}/v2/auth",service="docker-image-proxy",'
        'scope="repository:team/app:pull",error="insufficient_scope"'
    )
    assert service.upstream.asked == []
