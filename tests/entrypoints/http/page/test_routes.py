"""The answers of the page's paths."""

import asyncio
import gzip
import re
from typing import Any

import html5lib
import pytest

from domain.events import LoginDelayed
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import basic

ANN = basic("ann", "pw")
ACCOUNTS = {"accounts": ANN.removeprefix("Basic ")}
POLICY = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
    "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
}  # fmt: skip


def parsed(text: str) -> Any:
    """Raises an error for HTML that does not follow the standard."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


async def test_the_page_is_html_with_strict_headers(start: Start) -> None:
    service = await start()
    answer = await service.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert set(answer.headers["Content-Security-Policy"].split("; ")) == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert parsed(answer.text).find("body") is not None


async def test_the_page_names_no_other_host_and_has_no_inline_code(start: Start) -> None:
    service = await start()
    text = (await service.get("/")).text
    assert re.findall(r'(?:src|href|action)="(?![/?#])', text) == []
    assert re.findall(r"<script(?! src=)|<style| style=| on\w+=", text) == []


@pytest.mark.parametrize(("accepted", "lang"), [("", "en"), ("zh-CN,zh;q=0.9", "zh-Hans"), ("en,zh;q=0.9", "en")])
async def test_the_language_is_the_browsers(start: Start, accepted: str, lang: str) -> None:
    service = await start()
    answer = await service.get("/", {"Accept-Language": accepted})
    assert parsed(answer.text).attrib["lang"] == lang
    assert "Accept-Language" in answer.headers["Vary"]


async def test_assets_are_compressed_and_kept_for_ever(start: Start) -> None:
    service = await start()
    paths = set(re.findall(r'"(/static/[^"]+)"', (await service.get("/")).text))
    assert len(paths) == 5
    for path in paths:
        answer = await service.client.get(path, headers={"Accept-Encoding": "identity"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert "Content-Encoding" not in answer.headers
        zipped = await service.ask(f"GET {path} HTTP/1.1\nHost: a\nAccept-Encoding: gzip")
        assert zipped.get("Content-Encoding") == "gzip"
        assert gzip.decompress(zipped.body) == answer.content
        assert zipped.get("Vary") == "Accept-Encoding"


async def test_an_unknown_asset_is_404(start: Start) -> None:
    service = await start()
    for name in ("page.css", "versions.toml", "..%2Ftexts.toml", "%00"):
        assert (await service.get(f"/static/{name}")).status_code == 404


async def test_a_page_and_its_assets_are_small(start: Start) -> None:
    service = await start()
    page = await service.ask("GET / HTTP/1.1\nHost: a\nAccept-Encoding: gzip")
    size = len(page.body)
    for path in set(re.findall(r'"(/static/[^"]+)"', page.body.decode())):
        size += len((await service.ask(f"GET {path} HTTP/1.1\nHost: a\nAccept-Encoding: gzip")).body)
    assert size < 60_000


@pytest.mark.parametrize("path", ["/", "/login", "/static/page.css"])
async def test_without_the_page_its_paths_are_unknown(start: Start, path: str) -> None:
    service = await start(page="off", **ACCOUNTS)
    answer = await service.get(path)
    unknown = await service.get("/unknown")
    assert (answer.status_code, answer.json()) == (
        404,
        {
            "errors": [
                {
                    "code": "UNSUPPORTED",
                    "message": f"Requested URL {path} not found",
                    "detail": {"request_id": answer.headers["X-Request-ID"]},
                }
            ]
        },
    )
    assert answer.headers["Content-Type"] == unknown.headers["Content-Type"]
    assert service.client.app.ctx.runtimes.current.page._made is None


async def test_what_is_typed_is_shown_as_text(start: Start) -> None:
    service = await start()
    typed = '"><script>alert(1)</script>'
    text = (await service.client.get("/", params={"image": typed, "client": typed})).text
    assert "<script>alert" not in text
    assert "This is not the name of an image" in text
    assert parsed(text) is not None


async def test_the_commands_name_the_address_of_the_request(start: Start) -> None:
    service = await start(upstream_registry="https://registry-1.docker.io")
    answer = await service.ask("GET /?image=alpine:3&client=podman HTTP/1.1\nHost: pull.example.com:81")
    assert b"location = &#34;pull.example.com:81&#34;" in answer.body
    assert b"podman pull docker.io/library/alpine:3" in answer.body


async def test_the_commands_name_the_configured_address(start: Start) -> None:
    service = await start(self_registry="https://mirror.example.com")
    answer = await service.ask("GET /?client=k3s HTTP/1.1\nHost: other.example.com")
    assert b"https://mirror.example.com" in answer.body
    assert b"other.example.com" not in answer.body


async def test_an_invalid_host_is_refused(start: Start) -> None:
    service = await start()
    answer = await service.ask('GET / HTTP/1.1\nHost: a"b<script>')
    assert answer.status == 400
    assert b"<script>" not in answer.body.replace(b"<script src=", b"")


async def test_without_accounts_a_login_is_not_used(start: Start) -> None:
    service = await start()
    answer = await service.get("/", {"Authorization": ANN})
    assert answer.status_code == 200
    assert '<span class="user">' not in answer.text
    assert (await service.get("/login")).status_code == 404
    assert service.upstream.asked == []


async def test_a_right_login_is_shown(start: Start) -> None:
    service = await start(**ACCOUNTS)
    assert '<a href="/login">' in (await service.get("/")).text
    answer = await service.get("/", {"Authorization": ANN})
    assert '<span class="user">ann</span>' in answer.text
    assert "Authorization" in answer.headers["Vary"]
    done = await service.client.get("/login", headers={"Authorization": ANN}, follow_redirects=False)
    assert (done.status_code, done.headers["Location"]) == (303, "/")


async def test_login_asks_for_a_login(start: Start) -> None:
    service = await start(**ACCOUNTS)
    answer = await service.get("/login")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="docker-image-proxy"'
    assert parsed(answer.text) is not None


@pytest.mark.parametrize("path", ["/", "/login"])
@pytest.mark.parametrize("header", [basic("ann", "wrong"), basic("bob", "pw"), "Bearer abc", "Basic !", "Digest x"])
async def test_a_wrong_login_is_refused(start: Start, path: str, header: str) -> None:
    service = await start(**ACCOUNTS)
    answer = await service.get(path, {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_wrong_logins_are_counted_with_those_of_the_registry(start: Start) -> None:
    service = await start(**ACCOUNTS)
    for number in range(3):
        assert (await service.get("/", {"Authorization": basic("ann", f"wrong {number}")})).status_code == 401
    assert not any(isinstance(event, LoginDelayed) for event in service.parts.events().events)
    assert (await service.get("/v2/", {"Authorization": basic("ann", "wrong")})).status_code == 401
    assert LoginDelayed("ann", "127.0.0.1", 1) in service.parts.events().events


async def test_too_many_wrong_logins_at_once_get_a_retry_after(start: Start) -> None:
    service = await start(**ACCOUNTS)
    answers = await asyncio.gather(
        *(service.get("/", {"Authorization": basic("ann", f"wrong {number}")}) for number in range(16))
    )
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {401, 429}
    assert int(refused[0].headers["Retry-After"]) > 0
    assert parsed(refused[0].text) is not None
