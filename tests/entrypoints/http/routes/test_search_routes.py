"""The two pages of the v1 API."""

import pytest

from application.ports.upstream import SearchResult
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import basic
from tests.fakes.upstream import FakeUpstream

ANN = basic("ann", "pw")
SEARCH = {"search_upstream": "https://search.test/v1/search"}


@pytest.fixture
def upstream() -> FakeUpstream:
    found = SearchResult("library/nginx", 'the "web" server', 9, is_official=True)
    others = tuple(SearchResult(f"team/nginx-{number}") for number in range(150))
    return FakeUpstream(results=(found, *others), tags={"team/nginx": ["v1"], "team/other": ["v1"]})


async def test_ping_v1_says_standalone(start: Start) -> None:
    answer = await (await start()).get("/v1/_ping")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "true", "application/json")
    assert answer.headers["x-docker-registry-standalone"] == "1"


async def test_search_asks_the_upstreams_search(start: Start) -> None:
    answer = await (await start(**SEARCH)).get("/v1/search?q=library&n=5")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "query": "library",
        "num_results": 1,
        "results": [
            {
                "name": "library/nginx",
                "description": 'the "web" server',
                "star_count": 9,
                "is_official": True,
                "is_automated": False,
            }
        ],
    }


async def test_search_without_upstream_matches_the_catalog(start: Start) -> None:
    answer = await (await start()).get("/v1/search?q=NGINX")
    assert [one["name"] for one in answer.json()["results"]] == ["team/nginx"]


@pytest.mark.parametrize(
    ("query", "count"), [("", 25), ("&n=0", 25), ("&n=7", 7), ("&n=100", 100), ("&n=999999999", 100)]
)
async def test_number_of_results_is_bounded(start: Start, query: str, count: int) -> None:
    answer = await (await start(**SEARCH)).get(f"/v1/search?q=nginx{query}")
    assert (answer.json()["num_results"], len(answer.json()["results"])) == (count, count)


async def test_bad_number_reaches_no_upstream(start: Start, upstream: FakeUpstream) -> None:
    service = await start(**SEARCH)
    for number in ("-1", "x", "1.5", "%D9%A3", "1" * 10):
        answer = await service.get(f"/v1/search?q=a&n={number}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "PAGINATION_NUMBER_INVALID"), number
    assert upstream.searched == []


async def test_odd_term_reaches_no_upstream(start: Start, upstream: FakeUpstream) -> None:
    service = await start(**SEARCH)
    for term in ("a%0d%0ab", "%00", "%1b[31m", "x" * 256):
        answer = await service.get(f"/v1/search?q={term}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "UNSUPPORTED"), term
    assert upstream.searched == []


async def test_search_without_term_finds_everything(start: Start, upstream: FakeUpstream) -> None:
    answer = await (await start()).get("/v1/search")
    assert (answer.status_code, answer.json()["num_results"], answer.json()["query"]) == (200, 2, "")


@pytest.mark.parametrize("settings", [SEARCH, {}])
async def test_search_wants_an_account_by_basic(start: Start, upstream: FakeUpstream, settings: dict[str, str]) -> None:
    service = await start(accounts=ANN.split()[1], **settings)
    for headers in ({}, {"Authorization": basic("ann", "no")}, {"Authorization": "Bearer x"}):
        answer = await service.get("/v1/search?q=nginx", headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="docker-image-proxy"')
        assert answer.headers["cache-control"] == "no-store"
    assert (upstream.asked, upstream.searched) == ([], [])
    assert (await service.get("/v1/search?q=nginx", {"Authorization": ANN})).status_code == 200
