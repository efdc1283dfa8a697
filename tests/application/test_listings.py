"""Lists: tags, repositories, referrers, page by page."""

import json
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qsl, quote

import pytest

from application.access.access_request import Caller
from application.listings import following_query
from application.ports.upstream import ResponseMetadata
from domain.digest import Digest
from domain.errors import NameUnknown, ReferrersUnsupported, UpstreamBroken
from domain.manifests import MANIFEST_LIMIT
from domain.names import RepositoryName
from tests.application.support.ruled import CLOSED, ruled
from tests.application.support.service import ALICE, BOB, NAME, REALM, Service, accounts, basic, stocked
from tests.fakes.upstream import FakeAnswer

DIGEST = Digest.of(b"subject")
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def sending(content: bytes, upstream: str = "https://upstream.test", **metadata: object) -> Service:
    service = Service(stocked("none"), upstream_registry=upstream)

    def alter(answer: FakeAnswer) -> FakeAnswer:
        return FakeAnswer(replace(answer.metadata, **metadata), content)

    service.upstream.alter = alter
    return service


def referrers(service: Service, query: tuple[tuple[str, str], ...] = ()) -> object:
    return service.parts.listings().referrers(Caller(None, REALM), NAME, DIGEST, query)


LISTS: list[Callable[[Service], object]] = [
    lambda service: service.tags(),
    lambda service: service.catalog(),
    referrers,
]


def test_page_of_tags_keeps_its_bytes() -> None:
    content = b'{ "name":"public/app", "tags":["b","a"], "extra":1 }'
    service = sending(content)
    page = service.run(service.tags(query=(("n", "2"), ("last", "x"))))
    assert (page.content, page.media_type, page.next_query) == (content, "application/json", None)
    asked = service.upstream.asked[0]
    assert (asked.resource.path, asked.resource.query) == ("public/app/tags/list", (("n", "2"), ("last", "x")))


@pytest.mark.parametrize("content", [b'{"name":"public/app","tags":null}', b'{"name":"public/app"}', b"{}"])
def test_null_tags_become_an_empty_list(content: bytes) -> None:
    service = sending(content)
    assert json.loads(service.run(service.tags()).content) == {"name": "public/app", "tags": []}


@pytest.mark.parametrize("content", [b'{"repositories":null}', b"{}"])
def test_null_catalog_becomes_an_empty_list(content: bytes) -> None:
    service = sending(content)
    assert json.loads(service.run(service.catalog()).content) == {"repositories": []}


def test_tags_bear_the_name_the_client_used() -> None:
    service = sending(b'{"name":"library/nginx","tags":["1"]}', "https://registry-1.docker.io")
    service.upstream.tags["library/nginx"] = ["1"]
    page = service.run(service.tags(name=RepositoryName("nginx")))
    assert json.loads(page.content) == {"name": "nginx", "tags": ["1"]}
    assert service.upstream.asked[0].resource.path == "library/nginx/tags/list"


@pytest.mark.parametrize("ask", LISTS)
@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('</v2/public/app/tags/list?n=2&last=b>; rel="next"', "n=2&last=b"),
        ('<https://other.test/x?last=b%2Fc&n=2>; rel="next"', "last=b%2Fc&n=2"),
        ("<?token=abc>;rel=next", "token=abc"),
        ('</first>; rel="prev", </v2/_catalog?last=z>; rel="next"', "last=z"),
        ('</v2/_catalog?last=z>; rel="prev"', None),
        ('</v2/_catalog>; rel="next"', None),
        ("", None),
        (None, None),
    ],
)
def test_link_gives_the_query_of_the_next_page(
    ask: Callable[[Service], object], link: str | None, query: str | None
) -> None:
    service = sending(b'{"name":"public/app","tags":[],"repositories":[],"manifests":[]}', link=link)
    assert service.run(ask(service)).next_query == query


@pytest.mark.parametrize("ask", LISTS[:2])
@pytest.mark.parametrize(
    "content", [b"", b"<html></html>", b"[]", b"null", b'"text"', b"{", b"\xff\xfe{}", b"[" * 5000]
)
def test_page_that_is_no_json_object_is_refused(ask: Callable[[Service], object], content: bytes) -> None:
    service = sending(content)
    with pytest.raises(UpstreamBroken):
        service.run(ask(service))


@pytest.mark.parametrize("ask", LISTS[:2])
@pytest.mark.parametrize(
    "content",
    [
        b'{"errors":[{"code":"DENIED"}]}',
        b'{"message":"log in first"}',
        b'{"name":"public/app","error":"log in first"}',
        b'{"tags":"none","repositories":"none"}',
        b'{"tags":{},"repositories":{}}',
    ],
)
def test_json_that_is_no_list_is_refused(ask: Callable[[Service], object], content: bytes) -> None:
    service = sending(content)
    with pytest.raises(UpstreamBroken):
        service.run(ask(service))


@pytest.mark.parametrize("ask", LISTS)
def test_page_beyond_four_mebibytes_is_refused(ask: Callable[[Service], object]) -> None:
    service = sending(b" " * MANIFEST_LIMIT + b"{}")
    with pytest.raises(UpstreamBroken):
        service.run(ask(service))


def test_unknown_repository_has_no_tags() -> None:
    service = Service(stocked("none"))
    with pytest.raises(NameUnknown):
        service.run(service.tags(name=RepositoryName("no/such")))


def test_referrers_are_an_index_whatever_the_header() -> None:
    content = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    service = sending(content, media_type="application/json; charset=utf-8", filters_applied="artifactType")
    page = service.run(referrers(service, (("artifactType", "a/b"),)))
    assert (page.content, page.media_type, page.filters_applied) == (content, INDEX_TYPE, "artifactType")
    asked = service.upstream.asked[0].resource
    assert (asked.path, asked.query) == (f"public/app/referrers/{DIGEST}", (("artifactType", "a/b"),))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html><html></html>",
        b"[]",
        b"{}",
        b"null",
        b'{"errors":[{"code":"UNSUPPORTED"}]}',
        b'{"message":"no such page"}',
        b'{"schemaVersion":2,"layers":[],"config":{}}',
        b'{"manifests":[],"layers":[]}',
        b'{"manifests":{}}',
        b'{"manifests":"none"}',
        b'{"manifests":[],"mediaType":7}',
        b'{"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}',
        b'{"manifests":[NaN]}',
        b'{"manifests":' + b"[" * 100_000,
    ],
)
def test_what_is_no_index_is_never_labelled_as_one(content: bytes) -> None:
    service = sending(content)
    with pytest.raises(ReferrersUnsupported):
        service.run(referrers(service))


@pytest.mark.parametrize(
    "content",
    [
        b'{"schemaVersion":2,"manifests":[]}',
        b'{ "manifests" : [{"digest":"x"}], "mediaType":"application/VND.oci.image.index.v1+JSON" }',
    ],
)
def test_an_index_keeps_its_bytes(content: bytes) -> None:
    service = sending(content)
    assert service.run(referrers(service)).content == content


def test_null_referrers_become_an_empty_index() -> None:
    service = sending(b'{"schemaVersion":2,"manifests":null}')
    assert json.loads(service.run(referrers(service)).content) == {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [],
    }


@pytest.mark.parametrize("listed", [b'["a",null]', b'["a",7]', b'["a",["b"]]', b'["a",{}]'])
def test_a_catalog_with_something_else_than_names_is_refused_where_names_are_looked_into(listed: bytes) -> None:
    service = ruled(sending(b'{"repositories":' + listed + b"}"), CLOSED)
    with pytest.raises(UpstreamBroken):
        service.run(service.catalog())


@pytest.mark.parametrize("ask", LISTS[:2])
@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"[NaN]"])
def test_numbers_that_json_does_not_have_are_not_passed_on(ask: Callable[[Service], object], value: bytes) -> None:
    service = sending(b'{"name":"public/app","tags":[],"repositories":[],"extra":' + value + b"}")
    with pytest.raises(UpstreamBroken):
        service.run(ask(service))


def test_filter_is_never_claimed_for_the_upstream() -> None:
    service = sending(b'{"manifests":[]}', filters_applied=None)
    assert service.run(referrers(service, (("artifactType", "a/b"),))).filters_applied is None


@pytest.mark.parametrize("ask", LISTS)
def test_warnings_of_the_upstream_come_along(ask: Callable[[Service], object]) -> None:
    service = sending(
        b'{"name":"public/app","tags":null,"repositories":null,"manifests":[]}', warnings=('299 - "old"',)
    )
    assert service.run(ask(service)).warnings == ('299 - "old"',)


def test_catalog_leaves_out_what_this_caller_may_not_pull() -> None:
    service = ruled(Service(stocked("none"), accounts=accounts(ALICE, BOB)))
    assert service.run(service.catalog(basic(ALICE))).content == b'{"repositories": ["private/app", "public/app"]}'
    assert service.run(service.catalog(basic(BOB))).content == b'{"repositories":["public/app"]}'


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"repositories":["public/app"],"extra":1}', b'{"repositories":[],"extra":1}'),
        (b'{"repositories":["public/app","../x","a/b"]}', b'{"repositories":["a/b"]}'),
        (b'{ "repositories" : ["a/b"] }', b'{ "repositories" : ["a/b"] }'),
        (b'{"repositories":null}', b'{"repositories":[]}'),
    ],
)
def test_page_with_names_left_out_leads_to_the_next_one(content: bytes, shown: bytes) -> None:
    service = ruled(sending(content, link='</v2/_catalog?last=z>; rel="next"'), CLOSED)
    page = service.run(service.catalog())
    assert (page.content, page.next_query) == (shown, "last=z")


def paged(size: int, *names: str) -> Service:
    """An upstream whose pages begin after the last name; no caller may pull public/**."""
    service = ruled(Service(stocked("none")), CLOSED)

    def alter(_: FakeAnswer) -> FakeAnswer:
        last = dict(service.upstream.asked[-1].resource.query).get("last", "")
        rest = [name for name in names if name > last]
        link = f'</v2/_catalog?last={quote(rest[size - 1], safe="")}&n={size}>; rel="next"' if rest[size:] else None
        return FakeAnswer(ResponseMetadata(link=link), json.dumps({"repositories": rest[:size]}).encode())

    service.upstream.alter = alter
    return service


def walked(service: Service) -> tuple[list[str], list[str], tuple[str, ...]]:
    """The names, the links and the last warnings that somebody gets who reads the catalog to its end."""
    names, links, page = [], [], service.run(service.catalog())
    while True:
        names += json.loads(page.content)["repositories"]
        if page.next_query is None:
            return names, links, page.warnings
        links.append(page.next_query)
        page = service.run(service.catalog(query=tuple(parse_qsl(page.next_query))))


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_link_of_the_catalog_tells_no_name_that_is_left_out(size: int) -> None:
    service = paged(size, "a/1", "a/2", "public/1", "public/2", "public/3", "z/1", "z/2")
    names, links, warnings = walked(service)
    assert (names, warnings) == (["a/1", "a/2", "z/1", "z/2"], ())
    assert "public" not in "".join(links)


def test_catalog_that_would_be_read_for_ever_ends_with_a_warning() -> None:
    service = paged(1, "a/1", *(f"public/{number}" for number in range(100, 200)), "z/1")
    names, links, warnings = walked(service)
    assert (names, links) == (["a/1"], ["last=a%2F1&n=1"])
    assert ["incomplete" in warning for warning in warnings] == [True]
    assert len(service.upstream.asked) < 30


@pytest.mark.parametrize("ask", [referrers, lambda service, query: service.tags(query=query)])
@pytest.mark.parametrize(
    ("asked", "link", "following"),
    [
        ((("n", "2"), ("last", "b")), "</x?last=b&n=2>;rel=next", None),
        ((("n", "2"), ("last", "b")), "</x?last=c&n=2>;rel=next", "last=c&n=2"),
        ((("n", "2"),), "</x?last=b&n=2>;rel=next", "last=b&n=2"),
        ((), "</x?last=b>;rel=next", "last=b"),
    ],
)
def test_page_that_leads_to_itself_is_the_last(
    ask: Callable[..., object], asked: tuple[tuple[str, str], ...], link: str, following: str | None
) -> None:
    service = sending(b'{"name":"public/app","tags":[],"manifests":[]}', link=link)
    page = service.run(ask(service, query=asked))
    assert page.next_query == following
    assert ["incomplete" in warning for warning in page.warnings] == ([] if following else [True])


@pytest.mark.parametrize(
    ("target", "asked", "query"),
    [
        (None, (("n", "2"),), None),
        ("/x", (("n", "2"),), None),
        ("/x?last=b", (), "last=b"),
        ("/x?last=b&n=2", (("n", "2"), ("last", "a")), "last=b&n=2"),
        ("/x?last=b", (("n", "2"), ("last", "a")), "last=b&n=2"),
        ("/x?last=b&n=1", (("n", "2"),), "last=b&n=1"),
        ("/x?token=b%2Fc#part", (("artifactType", "a/b"), ("n", "2")), "token=b%2Fc&artifactType=a%2Fb&n=2"),
        ("/x?token=", (("last", "a"),), "token="),
    ],
)
def test_the_next_page_keeps_what_was_asked(
    target: str | None, asked: tuple[tuple[str, str], ...], query: str | None
) -> None:
    assert following_query(target, asked) == query
