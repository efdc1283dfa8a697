"""Tags, referrers and the catalog, over HTTP."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from domain.manifests import INDEX_MEDIA_TYPE
from tests.entrypoints.conftest import Start
from tests.fakes.upstream import FakeAnswer, FakeUpstream

DIGEST = "sha256:" + "1" * 64
TAGS, REFERRERS, CATALOG = "/v2/team/app/tags/list", f"/v2/team/app/referrers/{DIGEST}", "/v2/_catalog"
ALL = pytest.mark.parametrize("path", [TAGS, REFERRERS, CATALOG])


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream(tags={"team/app": ["b", "a"]})


EVERY_LIST = b'{"name":"team/app","tags":[],"repositories":[],"manifests":[]}'


def _answering(content: bytes = EVERY_LIST, **metadata: object) -> Callable[[FakeAnswer], FakeAnswer]:
    return lambda answer: replace(answer, content=content, metadata=replace(answer.metadata, **metadata))


async def test_tags_come_in_upstream_order(start: Start) -> None:
    answer = await (await start()).get(TAGS)
    assert (answer.status_code, answer.json()) == (200, {"name": "team/app", "tags": ["b", "a"]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert "link" not in answer.headers


@ALL
async def test_head_of_list_has_its_length(start: Start, path: str) -> None:
    service = await start()
    whole = await service.get(path)
    answer = await service.ask(f"HEAD {path} HTTP/1.1\nHost: a")
    assert (answer.status, answer.get("content-length")) == (200, str(len(whole.content)))


async def test_null_tags_become_an_array(start: Start, upstream: FakeUpstream) -> None:
    upstream.alter = _answering(b'{"name": "team/app", "tags": null}')
    assert (await (await start()).get(TAGS)).json() == {"name": "team/app", "tags": []}


async def test_tags_bear_the_clients_name(start: Start, upstream: FakeUpstream) -> None:
    upstream.tags["library/app"] = ["v1"]
    service = await start(upstream_registry="https://registry-1.docker.io")
    assert (await service.get("/v2/app/tags/list")).json() == {"name": "app", "tags": ["v1"]}
    assert upstream.asked[0].resource.path == "library/app/tags/list"


async def test_unchanged_list_keeps_its_bytes(start: Start, upstream: FakeUpstream) -> None:
    content = b'{ "tags" : ["v1"],\n "name":"team/app", "extra": 1 }'
    upstream.alter = _answering(content)
    assert (await (await start()).get(TAGS)).content == content


async def test_catalog_lists_all_the_repositories(start: Start, upstream: FakeUpstream) -> None:
    answer = await (await start()).get(CATALOG)
    assert (answer.status_code, answer.json()) == (200, {"repositories": ["team/app"]})


async def test_referrers_are_an_oci_index(start: Start) -> None:
    answer = await (await start()).get(REFERRERS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, INDEX_MEDIA_TYPE)
    assert answer.json() == {"schemaVersion": 2, "manifests": []}


async def test_applied_filters_are_passed_on(start: Start, upstream: FakeUpstream) -> None:
    upstream.alter = _answering(filters_applied="artifactType")
    answer = await (await start()).get(f"{REFERRERS}?artifactType=application/vnd.x%2Bjson")
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert upstream.asked[0].resource.query == (("artifactType", "application/vnd.x+json"),)


@ALL
async def test_link_leads_to_the_clients_path(start: Start, upstream: FakeUpstream, path: str) -> None:
    service = await start()
    for link in (
        '</v2/elsewhere/tags/list?last=b&n=2>; rel="next"',
        '<https://upstream.test/other/path?last=b&n=2>; rel="next"',
        "<?last=b&n=2>;rel=next",
    ):
        upstream.alter = _answering(link=link)
        answer = await service.get(f"{path}?n=2")
        assert answer.headers["link"] == f'<{path}?last=b&n=2>; rel="next"'


async def test_link_keeps_the_clients_name(start: Start, upstream: FakeUpstream) -> None:
    upstream.tags["library/app"] = ["v1"]
    upstream.alter = _answering(link='</v2/library/app/tags/list?n=1&last=v1>; rel="next"')
    answer = await (await start(upstream_registry="https://registry-1.docker.io")).get("/v2/app/tags/list?n=1")
    assert answer.headers["link"] == '</v2/app/tags/list?n=1&last=v1>; rel="next"'


@ALL
async def test_the_link_keeps_the_registry_and_every_filter_of_the_request(
    start: Start, upstream: FakeUpstream, path: str
) -> None:
    service = await start(upstream_names="two.test")
    upstream.alter = _answering(link='</v2/x>; rel="first", </v2/x?last=b>; rel="next", </v2/x>; rel="last"')
    answer = await service.get(f"{path}?n=2&ns=two.test&artifactType=a%2Fb&last=a")
    link = f"{path}?last=b&n=2&artifactType=a%2Fb&ns=two.test"
    assert answer.headers["link"] == f'<{link}>; rel="next"'
    upstream.asked.clear()
    following = await service.get(link)
    assert (following.status_code, following.headers["oci-namespace"]) == (200, "two.test")
    assert sorted(upstream.asked[0].resource.query) == [("artifactType", "a/b"), ("last", "b"), ("n", "2")]


async def test_link_without_next_is_dropped(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    for link in ('</v2/a/tags/list?n=1>; rel="prev"', "</v2/a/tags/list>; rel=next", "nonsense"):
        upstream.alter = _answering(link=link)
        assert "link" not in (await service.get(TAGS)).headers


@ALL
async def test_bad_page_size_reaches_no_upstream(start: Start, upstream: FakeUpstream, path: str) -> None:
    service = await start()
    for size in ("", "-1", "1.5", "abc", "+1", "1_0", "0x10", "1e3", "9" * 10):
        answer = await service.get(f"{path}?n={size}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "PAGINATION_NUMBER_INVALID"), size
    assert upstream.asked == []


@ALL
async def test_page_size_is_clamped_upstream(start: Start, upstream: FakeUpstream, path: str) -> None:
    service = await start()
    for asked, sent in (("0", "0"), ("7", "7"), ("1000", "1000"), ("1001", "1000"), ("999999999", "1000")):
        assert (await service.get(f"{path}?n={asked}&last=a%2Fb")).status_code == 200
        assert upstream.asked[-1].resource.query == (("n", sent), ("last", "a/b"))


@ALL
async def test_odd_query_reaches_no_upstream(start: Start, upstream: FakeUpstream, path: str) -> None:
    service = await start()
    odd = ("x%0d%0aEvil:1=1", "last=%0d%0aa", "last=%00", "a%20b=1", f"{'x' * 65}=1", "%C3%A9=1", "n=%D9%A3", "n=1%00")
    for query in odd:
        answer = await service.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "UNSUPPORTED"), query
    assert upstream.asked == []


NO_LIST = (b"<html></html>", b"[]", b"null", b'"x"', b"\xff")


@pytest.mark.parametrize("path", [TAGS, CATALOG])
async def test_list_that_is_none_is_refused(start: Start, upstream: FakeUpstream, path: str) -> None:
    service = await start()
    for body in NO_LIST:
        upstream.alter = _answering(body)
        answer = await service.get(path)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (502, "UNAVAILABLE"), body


async def test_referrers_that_the_upstream_does_not_list_are_a_404(start: Start, upstream: FakeUpstream) -> None:
    """Clients then fall back to the referrers tag (OCI distribution specification, "Unavailable Referrers API")."""
    service = await start()
    for body in (*NO_LIST, b'{"errors":[]}', b'{"tags":[]}', b'{"schemaVersion":2,"config":{},"layers":[]}'):
        upstream.alter = _answering(body)
        answer = await service.get(REFERRERS)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "UNSUPPORTED"), body
        assert answer.headers["content-type"] == "application/json"


async def test_unknown_repository_has_no_tags(start: Start) -> None:
    answer = await (await start()).get("/v2/team/none/tags/list")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


async def test_malformed_list_paths_reach_no_upstream(start: Start) -> None:
    service = await start()
    for path, code in {
        "/v2/Team/tags/list": "NAME_INVALID",
        "/v2//tags/list": "NAME_INVALID",
        "/v2/a%2F/tags/list": "NAME_INVALID",
        "/v2/team/app/referrers/latest": "DIGEST_INVALID",
        f"/v2/-a/referrers/{DIGEST}": "NAME_INVALID",
    }.items():
        answer = await service.ask(f"GET {path} HTTP/1.1\nHost: a")
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, code), path
    assert service.upstream.asked == []
