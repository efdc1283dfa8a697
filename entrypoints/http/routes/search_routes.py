"""Routes for search: the two paths of the v1 API that `docker search` and `podman search` use."""

import re

from sanic import Blueprint, HTTPResponse, Request

from domain.documents import print_json
from domain.errors import PaginationInvalid, RequestInvalid
from entrypoints.http.routes.pull_routes import caller_of, hint_for
from entrypoints.http.runtime import runtime_of

_DEFAULT_LIMIT = 25
_LARGEST_LIMIT = 100
_TERM_LIMIT = 255

searches = Blueprint("searches")


@searches.get("/v1/_ping")
async def ping_v1(request: Request) -> HTTPResponse:
    """`Standalone` makes docker send its login by Basic, instead of requesting a token from Docker Hub."""
    request.ctx.route = "search"
    return HTTPResponse("true", 200, {"X-Docker-Registry-Standalone": "1"}, "application/json")


@searches.get("/v1/search")
async def search(request: Request) -> HTTPResponse:
    request.ctx.route = "search"
    term = str(request.args.get("q", "")).strip()
    if len(term) > _TERM_LIMIT or not term.isprintable():
        raise RequestInvalid("malformed search term")
    results = await runtime_of(request).container.search()(caller_of(request), term, _limit(request), hint_for(request))
    document = {
        "query": term,
        "num_results": len(results),
        "results": [
            {
                "name": one.name,
                "description": one.description,
                "star_count": one.star_count,
                "is_official": one.is_official,
                "is_automated": False,
            }
            for one in results
        ],
    }
    return HTTPResponse(print_json(document), 200, {}, "application/json")


def _limit(request: Request) -> int:
    text = str(request.args.get("n", _DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise PaginationInvalid("n must be a number of results, 0 or more", detail={"n": text[:64]})
    return min(int(text) or _DEFAULT_LIMIT, _LARGEST_LIMIT)
