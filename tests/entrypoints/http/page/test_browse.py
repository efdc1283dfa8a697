"""The views of the section Browse, with a service behind them."""

import json
from urllib.parse import quote

import pytest

from application.ports.upstream import SearchResult, SessionCredentials
from domain.access import Credentials
from domain.digest import Digest
from domain.errors import CredentialsRejected
from tests.application.page.gallery import CONFIG, PUBLIC_IMAGE, SHARED
from tests.application.support.ruled import CLOSED, ruled
from tests.entrypoints.conftest import Start
from tests.entrypoints.http.page.test_administration import OLGA, OPERATORS
from tests.entrypoints.http.page.test_routes import ACCOUNTS, ANN, parsed
from tests.entrypoints.service import Service, basic
from tests.fakes.upstream import FakeAnswer, FakeUpstream

NAME = "team/app"
MIRRORS = Credentials("mirror", "pw")
"""The mirror's own login at the upstream."""
HOSTILE = '"><script>alert(1)</script>'
REPOSITORY = f"registry=upstream.test&repository={quote(NAME, safe='')}"


@pytest.fixture
def upstream() -> FakeUpstream:
    found = FakeUpstream(results=(SearchResult("team/other", HOSTILE, 7, is_official=True),))
    found.put_manifest(NAME, "1", PUBLIC_IMAGE)
    for blob in (CONFIG, SHARED):
        found.put_blob(NAME, blob)
    return found


def fail_with(error: Exception) -> FakeAnswer:
    raise error


async def pulled(service: Service, headers: dict[str, str] | None = None) -> None:
    for path in ("manifests/1", f"blobs/{Digest.of(CONFIG)}", f"blobs/{Digest.of(SHARED)}"):
        assert (await service.get(f"/v2/{NAME}/{path}", headers)).status_code == 200
    await service.parts.downloads().finished()
    await service.parts.background().close()


async def text_of(service: Service, path: str, headers: dict[str, str] | None = None) -> str:
    """The page at this path, which is valid HTML."""
    answer = await service.get(path, headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"]
    assert "<script>alert" not in answer.text
    parsed(answer.text)
    return str(answer.text)


async def test_an_empty_cache_points_to_the_instructions(start: Start) -> None:
    service = await start()
    assert "There is no cached image yet" in await text_of(service, "/browse")


async def test_a_pulled_image_is_found(start: Start) -> None:
    service = await start()
    await pulled(service)
    text = await text_of(service, "/browse")
    assert f'href="/browse/repository?{REPOSITORY.replace("&", "&amp;")}"' in text
    assert NAME in await text_of(service, "/browse?q=APP")
    assert "No cached image matches" in await text_of(service, "/browse?q=absent")
    tags = await text_of(service, f"/browse/repository?{REPOSITORY}")
    assert str(Digest.of(PUBLIC_IMAGE))[:19] in tags
    image = await text_of(service, f"/browse/image?{REPOSITORY}&reference=1")
    for shown in (
        str(Digest.of(PUBLIC_IMAGE)),
        str(Digest.of(SHARED))[:19],
        "COPY . /",
        "A=1",
        "linux/amd64",
        "cached",
    ):
        assert shown in image
    assert "1 layer" not in image


async def test_the_image_is_shown_in_chinese(start: Start) -> None:
    service = await start()
    await pulled(service)
    chinese = {"Accept-Language": "zh-CN"}
    assert "已缓存" in await text_of(service, f"/browse/image?{REPOSITORY}&reference=1", chinese)


@pytest.mark.parametrize(
    "path",
    [
        "/browse/repository",
        "/browse/repository?repository=absent",
        f"/browse/repository?repository={quote(HOSTILE)}",
        "/browse/image?repository=team/app&reference=2",
        "/browse/image?repository=team/app&reference=",
        "/browse/image?repository=team/app&reference=sha256:0",
        f"/browse/image?repository=team/app&reference={quote(HOSTILE)}",
        "/browse/image?repository=team/app&reference=1&platform=x",
    ],
)
async def test_what_is_not_known_is_404(start: Start, path: str) -> None:
    service = await start()
    await pulled(service)
    answer = await service.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<script>alert" not in answer.text
    parsed(answer.text)


async def test_a_hidden_image_and_an_absent_one_give_the_same_answer(start: Start) -> None:
    service = await start(**ACCOUNTS)
    await pulled(service, {"Authorization": ANN})
    assert NAME in await text_of(service, "/browse", {"Authorization": ANN})
    for path in ("repository?", "image?reference=1&"):
        hidden = await service.get(f"/browse/{path}repository={NAME}")
        absent = await service.get(f"/browse/{path}repository=team/absent")
        assert (hidden.status_code, hidden.text) == (404, absent.text)
        assert (await service.get(f"/browse/{path}repository={NAME}", {"Authorization": ANN})).status_code == 200
    text = await text_of(service, "/browse")
    assert NAME not in text
    assert "Log in to see the images" in text


async def test_the_upstream_is_searched(start: Start) -> None:
    service = await start(search_upstream="https://search.test/v1/search")
    text = await text_of(service, "/browse/search?q=other")
    assert "team/other" in text
    assert "official" in text
    assert "/browse/search?q=app" in await text_of(service, "/browse?q=app")
    assert [term for _, term, _ in service.upstream.searched] == ["other"]


async def test_without_an_account_the_upstream_is_not_searched(start: Start) -> None:
    service = await start(search_upstream="https://search.test/v1/search", **ACCOUNTS)
    text = await text_of(service, "/browse/search?q=other")
    assert "team/other" not in text
    assert service.upstream.searched == []
    assert "team/other" in await text_of(service, "/browse/search?q=other", {"Authorization": ANN})


async def test_a_search_finds_no_repository_that_the_rules_deny(start: Start) -> None:
    service = await start(search_upstream="https://search.test/v1/search")
    service.upstream.results = (SearchResult("public/secret"), SearchResult("team/other"))
    ruled(service, CLOSED)
    text = await text_of(service, "/browse/search?q=team")
    assert ("team/other" in text, "public/secret" in text) == (True, False)


@pytest.mark.parametrize("scheme", ["none", "bearer"])
@pytest.mark.parametrize("identity", ["client", "anonymous", "service"])
@pytest.mark.parametrize("search_upstream", [None, "https://search.test/v1/search"], ids=["catalog", "search"])
async def test_an_operator_searches_registries_that_need_accounts(
    start: Start, upstream: FakeUpstream, scheme: str, identity: str, search_upstream: str | None
) -> None:
    upstream.scheme, upstream.logins = scheme, {MIRRORS}
    upstream.put_manifest("team/other", "1", PUBLIC_IMAGE)
    settings: dict[str, object] = {"upstream_identity": identity, "search_upstream": search_upstream}
    if identity == "service":
        settings |= {"upstream_username": MIRRORS.username, "upstream_password": MIRRORS.password}
    service = await start(**settings, **ACCOUNTS, **OPERATORS)
    for login in ({}, {"Authorization": basic("olga", "wrong")}, {"Authorization": basic("nobody", "secret")}):
        answer = await service.get("/browse/search?q=other", login)
        assert "team/other" not in answer.text
    assert (upstream.asked, upstream.searched) == ([], [])
    assert "team/other" in await text_of(service, "/browse/search?q=other", {"Authorization": OLGA})
    # The upstream sees the mirror itself, and not the operator.
    mirrors = SessionCredentials(MIRRORS if identity == "service" else None)
    assert [one.credentials for one in upstream.asked] == ([] if search_upstream else [mirrors])


async def test_an_operator_finds_what_the_rules_deny_to_others(start: Start) -> None:
    service = await start(search_upstream="https://search.test/v1/search", **ACCOUNTS, **OPERATORS)
    service.upstream.results = (SearchResult("public/secret"), SearchResult("team/other"))
    ruled(service, CLOSED)
    # They were made at the start, with the rules of the settings.
    for part in (service.parts.rules, service.parts.authorize, service.parts.listings, service.parts.search):
        part.reset()
    for login, is_found in ((ANN, False), (OLGA, True)):
        text = await text_of(service, "/browse/search?q=team", {"Authorization": login})
        assert "team/other" in text
        text = await text_of(service, "/browse/search?q=secret", {"Authorization": login})
        assert ("public/secret" in text) == is_found


@pytest.mark.parametrize("refusal", [CredentialsRejected("no anonymous tokens"), None], ids=["no token", "challenge"])
async def test_an_operator_learns_that_the_upstream_refuses_the_mirror(
    start: Start, upstream: FakeUpstream, refusal: CredentialsRejected | None
) -> None:
    upstream.scheme = "bearer" if refusal else "basic"
    service = await start(**ACCOUNTS, **OPERATORS)
    if refusal:
        upstream.alter = lambda _: fail_with(refusal)
    text = await text_of(service, "/browse/search?q=other", {"Authorization": OLGA})
    assert "the upstream denies access" in text


async def test_an_empty_term_is_not_searched(start: Start) -> None:
    service = await start(search_upstream="https://search.test/v1/search")
    for term in ("", quote("a\nb"), "x" * 300):
        await text_of(service, f"/browse/search?q={term}")
    assert service.upstream.searched == []


async def test_hostile_content_is_shown_as_text(start: Start, upstream: FakeUpstream) -> None:
    config = json.dumps({"author": HOSTILE, "config": {"Labels": {HOSTILE: HOSTILE}, "Env": [HOSTILE]}}).encode()
    document = json.loads(PUBLIC_IMAGE)
    document["config"] |= {"digest": str(upstream.put_blob(NAME, config)), "size": len(config)}
    document["annotations"] = {HOSTILE: HOSTILE}
    upstream.put_manifest(NAME, "hostile", json.dumps(document).encode())
    service = await start()
    assert (await service.get(f"/v2/{NAME}/manifests/hostile")).status_code == 200
    assert (await service.get(f"/v2/{NAME}/blobs/{Digest.of(config)}")).status_code == 200
    await service.parts.downloads().finished()
    await service.parts.background().close()
    text = await text_of(service, f"/browse/image?{REPOSITORY}&reference=hostile")
    assert text.count("alert(1)") == 6
