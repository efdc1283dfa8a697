"""Lists of registries that ignore the requested page, or write an empty list as null."""

import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.adapters.upstream.wire import Heard, Say, reply
from tests.entrypoints.quirks.conftest import Behind
from tests.entrypoints.quirks.odd_registry import JSON, NAME, TAGS_PATH, VERSION, Mirror, Script

NAMES = [f"v{number}" for number in range(5)]


def paged(path: str = "") -> Script:
    """Two tags per page. The Link has the registry's own path, as with a registry behind a redirect."""

    def script(heard: Heard) -> Say | None:
        if not heard.target.startswith(f"/v2/{path}{NAME}/tags/list"):
            return None
        query = dict(parse_qsl(urlsplit(heard.target).query))
        begin = NAMES.index(query["last"]) + 1 if "last" in query else 0
        page = NAMES[begin : begin + 2]
        more = begin + 2 < len(NAMES)
        link = [("Link", f'</v2/{path}{NAME}/tags/list?last={page[-1]}&n=2>; rel="next"')] if more else []
        return reply(200, JSON, VERSION, *link, body=json.dumps({"name": path + NAME, "tags": page}).encode())

    return script


async def read_all(mirror: Mirror) -> tuple[list[str], list[str]]:
    """The tags that a client gets that follows every Link, and the Warnings."""
    found: list[str] = []
    warnings: list[str] = []
    path: str | None = f"{TAGS_PATH}?n=2"
    for _ in range(20):
        answer = await mirror.ask(path)
        assert answer.status == 200
        found += json.loads(answer.body)["tags"]
        warnings += answer.all("warning")
        link = answer.get("link")
        if link is None:
            return found, warnings
        path = link.partition("<")[2].partition(">")[0]
        assert path.startswith(f"{TAGS_PATH}?")
    raise AssertionError("the pages have no end")


async def test_query_missing_from_a_redirect_is_added(mirror: Behind) -> None:
    """registry.k8s.io redirects without the query."""
    regional = paged("images/")

    def script(heard: Heard) -> Say | None:
        if heard.target.startswith(TAGS_PATH):
            return reply(307, ("Location", f"/v2/images/{NAME}/tags/list"))
        return regional(heard)

    behind = await mirror(script)
    assert await read_all(behind) == (NAMES, [])
    assert behind.registry.heard("/images/")[0].target == f"/v2/images/{NAME}/tags/list?n=2"


async def test_query_of_a_redirect_is_not_changed(mirror: Behind) -> None:
    def script(heard: Heard) -> Say | None:
        if heard.target.startswith(TAGS_PATH):
            return reply(307, ("Location", "/stored?signature=a%2Fb"))
        return reply(200, JSON, body=b'{"tags":[]}') if heard.target.startswith("/stored") else None

    behind = await mirror(script)
    assert (await behind.ask(f"{TAGS_PATH}?n=2")).status == 200
    assert behind.registry.server.heard[-1].target == "/stored?signature=a%2Fb"


async def test_repeated_first_page_ends_the_list_with_a_warning(mirror: Behind) -> None:
    """Otherwise a client would follow the same Link forever."""
    first = paged()

    def script(heard: Heard) -> Say | None:
        forgetful = Heard(heard.method, heard.target.partition("?")[0], heard.headers, b"", 0, 0)
        return first(forgetful)

    behind = await mirror(script)
    found, warnings = await read_all(behind)
    assert found == NAMES[:2] * 2
    assert len(warnings) == 1
    assert "may be incomplete" in warnings[0]


async def test_client_that_follows_the_links_gets_all_pages(mirror: Behind) -> None:
    assert await read_all(await mirror(paged())) == (NAMES, [])


@pytest.mark.parametrize(
    ("path", "name"), [(TAGS_PATH, "tags"), ("/v2/_catalog", "repositories"), (f"{TAGS_PATH}?n=5", "tags")]
)
async def test_null_list_is_served_as_an_empty_list(mirror: Behind, path: str, name: str) -> None:
    said = reply(200, JSON, body=json.dumps({name: None}).encode())
    behind = await mirror(lambda heard: said if heard.target == path else None)
    assert json.loads((await behind.ask(path)).body)[name] == []
