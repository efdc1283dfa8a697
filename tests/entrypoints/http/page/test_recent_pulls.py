"""The section of the newest pulls."""

import re
from typing import Any

import html5lib
import pytest

from domain.digest import Digest
from tests.entrypoints.conftest import Start
from tests.entrypoints.http.page.test_administration import OLGA, OPERATORS
from tests.entrypoints.service import Service, basic
from tests.fakes.upstream import FakeUpstream

MANIFEST = b'{"schemaVersion":2,"layers":[]}'
DIGEST = Digest.of(MANIFEST)
ANN, BEN = basic("ann", "pw"), basic("ben", "pw")
ACCOUNTS = {"accounts": ",".join(login.removeprefix("Basic ") for login in (ANN, BEN))}


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", MANIFEST)
    return upstream


async def rows(service: Service, headers: dict[str, str] | None = None) -> list[list[str]]:
    """The text of each cell but the time."""
    answer = await service.get("/pulls", headers)
    assert answer.status_code == 200
    page: Any = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(answer.text)
    return [[" ".join("".join(cell.itertext()).split()) for cell in row.findall("td")][1:] for row in page.iter("tr")][
        1:
    ]


async def get(service: Service, reference: str, method: str = "GET", headers: str = "") -> None:
    answer = await service.ask(f"{method} /v2/team/app/manifests/{reference} HTTP/1.1\nHost: a{headers}")
    assert answer.status in (200, 304)


async def test_hits_and_misses_are_shown_also_those_from_the_response_cache(start: Start) -> None:
    service = await start()
    await get(service, "v1")
    async with service.wire() as wire:
        for _ in range(3):
            await wire.send("GET /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.answer()
    found = await rows(service)
    assert sorted((row[0], row[1], row[3]) for row in found) == [
        ("upstream.test/team/app:v1", "hit", "31 B"),
        ("upstream.test/team/app:v1", "hit", "31 B"),
        ("upstream.test/team/app:v1", "hit", "31 B"),
        ("upstream.test/team/app:v1", "miss", "31 B"),
    ]
    assert all(re.fullmatch(r"[0-9.]+ m?s", row[2]) for row in found)


async def test_a_digest_is_shortened_and_a_head_is_not_shown(start: Start) -> None:
    service = await start()
    await get(service, "v1", "HEAD")
    await get(service, str(DIGEST))
    await get(service, str(DIGEST), headers=f"\nIf-None-Match: {DIGEST}")
    assert sorted((row[0], row[3]) for row in await rows(service)) == [
        (f"upstream.test/team/app@{str(DIGEST)[:19]}", "0 B"),
        (f"upstream.test/team/app@{str(DIGEST)[:19]}", "31 B"),
    ]


async def test_refused_and_unknown_manifests_are_not_shown(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    await service.get("/v2/team/app/manifests/other")
    upstream.scheme = "bearer"
    await service.get("/v2/team/app/manifests/v1")
    assert await rows(service) == []


async def test_an_account_sees_which_pulls_are_its_own_and_no_other_name(start: Start) -> None:
    service = await start(**ACCOUNTS)
    for login in (ANN, BEN):
        await get(service, "v1", headers=f"\nAuthorization: {login}")
    for login in (ANN, BEN):
        found = sorted(row[:2] for row in await rows(service, {"Authorization": login}))
        first_is_own = login == ANN
        assert found == (
            [["upstream.test/team/app:v1", "hit"], ["upstream.test/team/app:v1 by you", "miss"]]
            if first_is_own
            else [["upstream.test/team/app:v1", "miss"], ["upstream.test/team/app:v1 by you", "hit"]]
        )
    assert "ben" not in (await service.get("/pulls", {"Authorization": ANN})).text
    nobodys = await service.get("/pulls")
    assert "team/app" not in nobodys.text
    assert "Log in to see" in nobodys.text


async def test_only_operators_see_who_has_pulled(start: Start) -> None:
    service = await start(**OPERATORS)
    request = "GET /v2/team/app/manifests/v1 HTTP/1.1\nHost: a"
    for _ in range(3):  # the last one is answered from the response cache
        assert (await service.ask(request, address="127.0.0.99")).status == 200
    text = (await service.get("/pulls")).text
    assert "team/app:v1" in text
    assert "127.0.0.99" not in text
    image = "upstream.test/team/app:v1"
    assert [row[0] for row in await rows(service, {"Authorization": OLGA})] == [f"{image} from 127.0.0.99"] * 3


async def test_operators_see_the_account_in_place_of_the_address(start: Start) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    await get(service, "v1", headers=f"\nAuthorization: {ANN}")
    answer = await service.get("/pulls", {"Authorization": OLGA})
    assert [row[0] for row in await rows(service, {"Authorization": OLGA})] == ["upstream.test/team/app:v1 by ann"]
    assert "Only operators see who" in answer.text
    assert "Nobody sees here" not in answer.text


async def test_the_section_is_in_chinese_too(start: Start) -> None:
    service = await start()
    assert "没有可显示的拉取记录" in (await service.get("/pulls", {"Accept-Language": "zh"})).text


async def test_without_the_page_the_section_is_unknown(start: Start) -> None:
    service = await start(page="off")
    assert (await service.get("/pulls")).status_code == 404
