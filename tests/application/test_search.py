"""Search: by the upstream's own where it has one, else through its catalog."""

import json
from dataclasses import replace

import pytest

from application.ports.upstream import SearchResult
from domain.access_rules import AccessRules, Effect
from domain.errors import Unauthorized, UpstreamBroken, UpstreamTimedOut
from tests.application.support.ruled import CLOSED, rule, ruled
from tests.application.support.service import ALICE, Service, accounts, basic, stocked
from tests.fakes.upstream import FakeAnswer

SEARCH_URL = "https://search.test/v1/search"


def paged(*pages: list[object], endless: bool = False) -> Service:
    """An upstream whose catalog has these pages; an endless one begins again after the last."""
    service = Service(stocked("none"))

    def alter(answer: FakeAnswer) -> FakeAnswer:
        number = int(dict(service.upstream.asked[-1].resource.query).get("page", 0))
        more = endless or number + 1 < len(pages)
        link = f'</v2/_catalog?page={number + 1}&n=1000>; rel="next"' if more else None
        content = json.dumps({"repositories": pages[number % len(pages)]}).encode()
        return FakeAnswer(replace(answer.metadata, link=link), content)

    service.upstream.alter = alter
    return service


def names(results: tuple[SearchResult, ...]) -> list[str]:
    return [one.name for one in results]


def test_upstreams_own_search_is_asked_where_there_is() -> None:
    service = Service(stocked("none"), search_upstream=SEARCH_URL)
    service.upstream.results = (SearchResult("some/app", "an app", 7, is_official=True), SearchResult("other"))
    assert service.run(service.search(term="app", limit=3)) == (SearchResult("some/app", "an app", 7, True),)
    assert service.upstream.searched == [(SEARCH_URL, "app", 3)]
    assert service.upstream.asked == []


def test_docker_hub_is_searched_at_its_own_address() -> None:
    service = Service(stocked("none"), upstream_registry="https://registry-1.docker.io")
    service.run(service.search(term="nginx", limit=25))
    assert service.upstream.searched == [("https://index.docker.io/v1/search", "nginx", 25)]


def test_search_elsewhere_wants_an_account_all_the_same() -> None:
    service = Service(stocked("none"), search_upstream=SEARCH_URL, accounts=accounts(ALICE))
    with pytest.raises(Unauthorized):
        service.run(service.search())
    assert service.upstream.searched == []
    service.run(service.search(basic(ALICE)))
    assert service.upstream.searched == [(SEARCH_URL, "app", 25)]


def test_failing_search_is_told_as_it_is() -> None:
    service = Service(stocked("none"), search_upstream=SEARCH_URL)
    service.run(service.warm_up())
    service.upstream.fault = UpstreamTimedOut("search.test did not answer in time")
    with pytest.raises(UpstreamTimedOut):
        service.run(service.search())


def test_catalog_is_matched_through_all_pages() -> None:
    service = paged(["a/app", "b/web"], ["c/app"], ["d/app-web"])
    assert names(service.run(service.search(term="app"))) == ["a/app", "c/app", "d/app-web"]
    assert len(service.upstream.asked) == 3


def test_capitals_of_the_term_do_not_count() -> None:
    service = paged(["a/app"])
    assert names(service.run(service.search(term="APP"))) == ["a/app"]


def test_search_stops_at_the_limit() -> None:
    service = paged(["a/app", "b/app", "c/app"], ["d/app"], ["e/app"])
    assert names(service.run(service.search(term="app", limit=2))) == ["a/app", "b/app"]
    assert len(service.upstream.asked) == 1


def test_empty_term_lists_what_there_is() -> None:
    service = paged(["a/app"], ["b/web"])
    assert names(service.run(service.search(term=""))) == ["a/app", "b/web"]


def test_nothing_found_is_an_empty_answer() -> None:
    service = paged(["a/app"])
    assert service.run(service.search(term="no such thing")) == ()


def test_endless_paging_comes_to_an_end() -> None:
    service = paged(["a/app"], ["b/web"], endless=True)
    service.run(service.search(term="nothing like it"))
    assert len(service.upstream.asked) <= 100


def test_first_page_for_ever_is_read_twice_at_most() -> None:
    """A registry that drops the query when it redirects names the same next page on each of them."""
    service = Service(stocked("none"))
    content = b'{"repositories":["a/app","b/web"]}'
    link = '</v2/_catalog?last=b%2Fweb&n=1000>; rel="next"'
    service.upstream.alter = lambda answer: FakeAnswer(replace(answer.metadata, link=link), content)
    found = names(service.run(service.search(term="app")))
    assert len(service.upstream.asked) <= 2
    assert set(found) == {"a/app"}


def test_result_is_named_once_however_often_sent() -> None:
    service = Service(stocked("none"))
    link = '</v2/_catalog?last=b%2Fweb&n=1000>; rel="next"'
    content = b'{"repositories":["a/app","b/web"]}'
    service.upstream.alter = lambda answer: FakeAnswer(replace(answer.metadata, link=link), content)
    assert names(service.run(service.search(term="app"))) == ["a/app"]


def test_name_outside_the_grammar_is_left_out() -> None:
    service = paged(["a/app", "A/APP", "../app", "app\n", "x" * 300 + "app"])
    assert names(service.run(service.search(term="app"))) == ["a/app"]


@pytest.mark.parametrize("page", [[None], [7], [{"name": "a/app"}], [["a/app"]]])
def test_catalog_of_something_else_is_refused(page: list[object]) -> None:
    service = paged(page)
    with pytest.raises(UpstreamBroken):
        service.run(service.search(term="app"))


def test_null_catalog_finds_nothing_at_all() -> None:
    service = Service(stocked("none"))
    service.upstream.alter = lambda answer: FakeAnswer(answer.metadata, b'{"repositories":null}')
    assert service.run(service.search(term="app")) == ()


@pytest.mark.parametrize("settings", [{"search_upstream": SEARCH_URL}, {}])
def test_what_the_caller_may_not_pull_is_not_found(settings: dict[str, object]) -> None:
    service = ruled(Service(stocked("none"), **settings), CLOSED)
    service.upstream.results = (SearchResult("public/app"), SearchResult("private/app"), SearchResult("An/App"))
    assert names(service.run(service.search(term="app"))) == ["private/app"]


def test_official_image_that_is_forbidden_is_not_found() -> None:
    service = Service(stocked("none"), upstream_registry="https://registry-1.docker.io")
    ruled(service, AccessRules((rule(Effect.DENY, "docker.io/library/nginx"),)))
    service.upstream.results = (SearchResult("nginx"), SearchResult("bitnami/nginx"))
    assert names(service.run(service.search(term="nginx"))) == ["bitnami/nginx"]
