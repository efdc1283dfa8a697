"""Links to a next page with characters that no address may have."""

from dataclasses import replace

import pytest

from tests.entrypoints.conftest import Start
from tests.fakes.upstream import FakeUpstream


@pytest.mark.parametrize(
    ("query", "legal"),
    [
        ("n=1&last=a b", "n=1&last=a%20b"),
        ("n=1&last=é", "n=1&last=%C3%A9"),
        ("n=1&last=\udcff", "n=1&last=%FF"),
        ("n=1&last=a%2Fb%2f~+&&x", "n=1&last=a%2Fb%2f~+&&x"),
    ],
)
async def test_what_is_illegal_in_a_link_is_percent_encoded(
    start: Start, upstream: FakeUpstream, query: str, legal: str
) -> None:
    upstream.tags["team/app"] = ["v1"]
    link = f'</v2/team/app/tags/list?{query}>; rel="next"'
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, link=link))
    service = await start()
    answer = await service.ask("GET /v2/team/app/tags/list HTTP/1.1\nHost: a")
    assert answer.status == 200
    assert legal in str(answer.get("link"))
    assert str(answer.get("link")).isascii()
