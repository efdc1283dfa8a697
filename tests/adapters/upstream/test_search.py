"""The v1 search of an upstream."""

import json
from dataclasses import replace

import pytest

from application.ports.upstream import SearchResult
from domain.errors import UpstreamBroken, UpstreamFault, UpstreamRejected, UpstreamThrottled, UpstreamTimedOut
from tests.adapters.upstream.line import Line, in_loop, line
from tests.adapters.upstream.wire import Say, reply


def results(*found: object) -> Say:
    return reply(body=json.dumps({"query": "x", "num_results": len(found), "results": found}).encode())


async def search(link: Line, term: str = "some app", limit: int = 25) -> tuple[SearchResult, ...]:
    upstream = replace(link.upstream, search_url=f"{link.server.url}/v1/search")
    return await link.parts.search.search(upstream, term, limit)


@in_loop
async def test_the_search_sends_term_and_limit_without_credentials() -> None:
    async with line(lambda _: results()) as link:
        assert await search(link, "some/app & more=ü", 7) == ()
        (heard,) = link.server.heard
        assert (heard.method, heard.target) == ("GET", "/v1/search?q=some%2Fapp+%26+more%3D%C3%BC&n=7")
        assert heard.header("Authorization") is None


@in_loop
async def test_results_have_all_their_fields() -> None:
    hub = {"name": "nginx", "description": "the server", "star_count": 20_000, "is_official": True, "pull_count": 9}
    bare = {"name": "some/app", "description": None, "star_count": None}
    async with line(lambda _: results(hub, bare)) as link:
        assert await search(link) == (SearchResult("nginx", "the server", 20_000, True), SearchResult("some/app"))


@in_loop
async def test_surplus_results_are_left_out() -> None:
    async with line(lambda _: results(*({"name": f"a{number}"} for number in range(9)))) as link:
        assert [one.name for one in await search(link, limit=2)] == ["a0", "a1"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"results":null}',
        b'{"results":[{}]}',
        b'{"results":["a"]}',
        b'{"results":[{"name":"a","star_count":"many"}]}',
        b'{"results":[{"name":"a","star_count":1e999}]}',
        b'{"results":' + b"[" * 5000,
        b'{"results":[]}' + b" " * 5_000_000,
    ],
)
@in_loop
async def test_other_bodies_are_errors(body: bytes) -> None:
    async with line(lambda _: reply(body=body)) as link:
        with pytest.raises(UpstreamBroken):
            await search(link)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (reply(401, ("WWW-Authenticate", 'Basic realm="x"')), UpstreamRejected),
        (reply(429, ("Retry-After", "9")), UpstreamThrottled),
        (reply(500), UpstreamBroken),
        (reply(404), UpstreamFault),
        (Say(then="hang"), UpstreamTimedOut),
    ],
)
@in_loop
async def test_a_failed_search_raises_its_error(said: Say, expected: type[UpstreamFault]) -> None:
    async with line(lambda _: said, read_timeout=0.3) as link:
        with pytest.raises(expected):
            await search(link)
