"""The section for operators: who may open it, which forms are accepted, and what the actions do."""

import re
from typing import Any
from urllib.parse import urlencode

import bcrypt
import html5lib
import pytest

from application.ports.reloads import ReloadResult
from domain.digest import Digest
from domain.events import OperatorActed
from domain.names import Reference, RepositoryName, Tag
from domain.pins import Pin, PinnedImage
from entrypoints.http.page.form_checks import make_token
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic
from tests.fakes.upstream import FakeUpstream

ANN, OLGA, OTTO = basic("ann", "pw"), basic("olga", "secret"), basic("otto", "other")
HASHES = {
    name: bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()
    for name, password in (("olga", b"secret"), ("otto", b"other"))
}
OPERATORS = {"admin_accounts": ",".join(f"{name}:{hashed}" for name, hashed in HASHES.items())}
ACCOUNTS = {"accounts": ANN.removeprefix("Basic ")}
MANIFEST = b'{"schemaVersion":2,"layers":[]}'
OTHER_MANIFEST = b'{"schemaVersion":2,"layers":[],"annotations":{"a":"b"}}'
WHY = {"image": "upstream.test/team/app:v1", "account": "", "address": ""}
PLACE = {"registry": "upstream.test", "repository": "team/app", "reference": "v1"}


class MainProcess:
    """Reloads, without another process."""

    def __init__(self) -> None:
        self.results: list[ReloadResult] = []

    def request(self) -> None:
        self.results.append(ReloadResult(len(self.results) + 1, "settings not reloaded: PORT", is_error=True))

    def last(self) -> ReloadResult | None:
        return self.results[-1] if self.results else None


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", MANIFEST)
    upstream.put_manifest("team/app", "v2", OTHER_MANIFEST)
    return upstream


def parsed(text: str) -> Any:
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


async def pull(service: Service, reference: str = "v1", login: str | None = None) -> int:
    headers = {"Authorization": login} if login else {}
    status = int((await service.get(f"/v2/team/app/manifests/{reference}", headers)).status_code)
    await service.parts.background().close()
    return status


async def form_token(service: Service, login: str = OLGA, path: str = "/admin") -> str:
    service.client.app.ctx.reloads = service.client.app.ctx.reloads or MainProcess()
    answer = await service.get(path, {"Authorization": login})
    assert answer.status_code == 200
    return re.findall(r'name="token" value="([^"]+)"', answer.text)[0]


async def purge(
    service: Service, token: str, fields: dict[str, str] | None = None, login: str = OLGA, **headers: str
) -> Any:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.post(
        "/admin/purge",
        data={"token": token, **(PLACE if fields is None else fields)},
        headers={"Authorization": login, **headers},
        follow_redirects=False,
    )


def preview(fields: dict[str, str]) -> str:
    return f"/admin/purge?{urlencode(fields)}"


async def is_stored(service: Service, content: bytes = MANIFEST) -> bool:
    return bool(await service.parts.eviction().holds(Digest.of(content)))


def audits(service: Service) -> list[OperatorActed]:
    return [event for event in service.parts.events().events if isinstance(event, OperatorActed)]


@pytest.mark.parametrize("path", ["/admin", "/admin/purge"])
async def test_without_operators_the_section_is_unknown(start: Start, path: str) -> None:
    service = await start(**ACCOUNTS)
    assert (await service.get(path, {"Authorization": ANN})).status_code == 404
    assert (await service.client.post(path, data={})).status_code in {404, 405}
    assert (await service.client.post("/admin/why", data=WHY)).status_code == 404
    assert 'href="/admin"' not in (await service.get("/")).text


@pytest.mark.parametrize("path", ["/admin", "/admin/purge"])
@pytest.mark.parametrize("login", [None, ANN, basic("olga", "wrong"), basic("nobody", "secret"), "Bearer abc"])
async def test_only_operators_open_the_section(start: Start, path: str, login: str | None) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    headers = {"Authorization": login} if login else {}
    answer = await service.get(path, headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    for target in ("/admin/purge", "/admin/why"):
        posted = await service.client.post(target, data=PLACE | WHY, headers=headers, follow_redirects=False)
        assert posted.status_code == 401
        assert "team/app" not in posted.text


async def test_an_operator_sees_the_section_in_the_navigation(start: Start) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    shown = (await service.get("/", {"Authorization": OLGA})).text
    assert 'href="/admin"' in shown
    assert "operator" in shown
    for login in ({}, {"Authorization": ANN}):
        assert 'href="/admin"' not in (await service.get("/", login)).text
    answer = await service.get("/admin", {"Authorization": OLGA})
    assert parsed(answer.text) is not None
    # With `no-referrer`, browsers would send `Origin: null` with a form.
    assert answer.headers["Referrer-Policy"] == "same-origin"


async def test_the_login_of_an_operator_pulls_nothing(start: Start) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    assert await pull(service, login=OLGA) == 401
    assert (await service.get("/v2/auth?scope=repository:team/app:pull", {"Authorization": OLGA})).status_code == 401
    assert (await service.get("/v2/", {"Authorization": OLGA})).status_code == 401
    assert await pull(service, login=ANN) == 200


async def test_an_operator_sees_everything_and_others_what_they_may(start: Start) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    assert await pull(service, login=ANN) == 200
    for path in ("/browse", "/pulls"):
        assert "team/app" in (await service.get(path, {"Authorization": OLGA})).text
        assert "team/app" not in (await service.get(path)).text
    assert "by ann" in (await service.get("/pulls", {"Authorization": OLGA})).text
    place = urlencode({"registry": "upstream.test", "repository": "team/app", "reference": "v1"})
    assert (await service.get(f"/browse/image?{place}", {"Authorization": OLGA})).status_code == 200
    assert (await service.get(f"/browse/image?{place}")).status_code == 404


async def test_with_page_admin_every_path_needs_an_operator(start: Start) -> None:
    service = await start(page="admin", **ACCOUNTS, **OPERATORS)
    asset = re.findall(r'"(/static/[^"]+)"', (await service.get("/", {"Authorization": OLGA})).text)[0]
    for path in ("/", "/pulls", "/pulls/events", "/browse", "/admin", "/login", asset):
        for login in ({}, {"Authorization": ANN}):
            assert (await service.get(path, login)).status_code == 401, path
    for path in ("/", "/pulls", "/browse", "/admin", asset):
        assert (await service.get(path, {"Authorization": OLGA})).status_code == 200, path


async def test_a_purge_is_previewed_confirmed_and_leaves_an_audit_event(start: Start) -> None:
    service = await start(**OPERATORS)
    assert (await pull(service), await pull(service, "v2")) == (200, 200)
    answer = await service.get(preview(PLACE), {"Authorization": OLGA})
    assert parsed(answer.text) is not None
    assert "Manifests and blobs: 1, 31 B" in answer.text
    assert await is_stored(service)
    done = await purge(
        service, await form_token(service, path=preview(PLACE)), Origin=f"http://127.0.0.1:{service.port}"
    )
    assert (done.status_code, done.headers["Location"]) == (303, "/admin?removed=1")
    assert not await is_stored(service)
    assert await is_stored(service, OTHER_MANIFEST)
    assert audits(service) == [OperatorActed("olga", "127.0.0.1", "purge", "upstream.test/team/app:v1", "1 removed")]
    assert "Manifests and blobs removed: 1." in (await service.get("/admin?removed=1", {"Authorization": OLGA})).text


@pytest.mark.parametrize(
    ("reference", "left"), [("", set()), (str(Digest.of(MANIFEST)), {OTHER_MANIFEST}), ("v2", {MANIFEST})]
)
async def test_a_repository_a_digest_or_a_tag_is_purged(start: Start, reference: str, left: set[bytes]) -> None:
    service = await start(**OPERATORS)
    assert (await pull(service), await pull(service, "v2")) == (200, 200)
    fields = PLACE | {"reference": reference}
    token = await form_token(service, path=preview(fields))
    assert (await purge(service, token, fields)).status_code == 303
    assert {one for one in (MANIFEST, OTHER_MANIFEST) if await is_stored(service, one)} == left


async def test_a_digest_is_not_removed_by_the_name_of_another_repository(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    fields = PLACE | {"repository": "team/other", "reference": str(Digest.of(MANIFEST))}
    assert "Manifests and blobs: 0" in (await service.get(preview(fields), {"Authorization": OLGA})).text
    await purge(service, await form_token(service), fields)
    assert await is_stored(service)


def pinned_in(service: Service) -> PinnedImage:
    pin = Pin(service.parts.upstream().url, RepositoryName("team/app"), Reference(Tag("v1")))
    return PinnedImage(pin, 1.0, Digest.of(MANIFEST), {Digest.of(MANIFEST): len(MANIFEST)})


@pytest.mark.parametrize("reference", ["v1", "", str(Digest.of(MANIFEST))])
async def test_a_pinned_image_is_not_purged_and_the_page_says_so(start: Start, reference: str) -> None:
    service = await start(**OPERATORS)
    assert (await pull(service), await pull(service, "v2")) == (200, 200)
    fields = PLACE | {"reference": reference}
    token = await form_token(service, path=preview(fields))
    await service.parts.pins().keep(pinned_in(service))
    answer = await service.get(preview(fields), {"Authorization": OLGA})
    assert parsed(answer.text) is not None
    assert "upstream.test/team/app:v1 is pinned and cannot be purged. Unpin it first." in answer.text
    assert 'action="/admin/purge"' not in answer.text
    # The operator had opened the preview before the image was pinned.
    done = await purge(service, token, fields)
    assert (done.status_code, done.headers["Location"]) == (303, preview(fields))
    headers = {"Authorization": OLGA, "Accept-Language": "zh"}
    assert "upstream.test/team/app:v1 已固定" in (await service.get(preview(fields), headers)).text
    assert await is_stored(service)
    assert await is_stored(service, OTHER_MANIFEST)
    (audit,) = audits(service)
    assert audit.result == "refused: upstream.test/team/app:v1 is pinned and cannot be purged; unpin it first"


async def test_pins_that_cannot_be_read_are_reported_by_the_preview(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    service.parts.pins().is_broken = True
    answer = await service.get(preview(PLACE), {"Authorization": OLGA})
    assert answer.status_code == 500
    assert "the fake pins are broken" in answer.text
    done = await purge(service, await form_token(service))
    assert done.status_code == 500
    assert await is_stored(service)


async def test_unused_content_is_purged(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    await service.parts.eviction().flush()
    token = await form_token(service)
    assert (await purge(service, token, {"days": "1"})).headers["Location"] == "/admin?removed=0"
    service.parts.clock().advance(2 * 86400)
    token = await form_token(service, path=preview({"days": "1"}))
    assert (await purge(service, token, {"days": "1"})).headers["Location"] == "/admin?removed=1"
    assert not await is_stored(service)


@pytest.mark.parametrize(
    "fields",
    [{"days": "-1"}, {"days": "1.5"}, {"days": "100000"}, PLACE | {"registry": "other"}, PLACE | {"repository": "A B"},
     PLACE | {"repository": ""}, PLACE | {"reference": "a b"}, PLACE | {"reference": "sha256:1"}, {}],
)  # fmt: skip
async def test_invalid_input_purges_nothing(start: Start, fields: dict[str, str]) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    answer = await service.get(preview(fields), {"Authorization": OLGA})
    assert (answer.status_code, "problem" in answer.text) == (200, True)
    assert (await purge(service, await form_token(service), fields)).status_code == 400
    assert await is_stored(service)
    assert audits(service) == []


async def test_forged_forms_are_refused_and_change_nothing(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    token, ottos = await form_token(service), await form_token(service, OTTO)
    expires, _, signature = token.partition(".")
    forged = [
        "",
        "x",
        ".",
        token[:-1],
        f"{int(expires) + 9}.{signature}",
        f"{expires}.",
        "é.é",
        ottos,
        "inf." + signature,
    ]
    for one in forged:
        assert (await purge(service, one)).status_code == 403, one
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ):
        assert (await purge(service, token, **headers)).status_code == 403, headers
    assert await is_stored(service)
    assert audits(service) == []
    service.parts.clock().advance(4 * 3600)
    assert (await purge(service, token)).status_code == 403
    assert await is_stored(service)
    token = await form_token(service)
    assert (await purge(service, token, Sec_Fetch_Site="same-origin")).status_code == 303


async def test_a_token_ends_with_the_password_and_with_the_secret(start: Start) -> None:
    service = await start(**OPERATORS)
    key, now = service.parts.form_key(), service.parts.clock().now()
    assert (await purge(service, make_token(key, "olga", "another stamp", now))).status_code == 403
    stamp = service.parts.operators().stamp("olga")
    assert (await purge(service, make_token(bytes(64), "olga", stamp, now))).status_code == 403
    assert (await purge(service, make_token(key, "olga", stamp, now))).status_code == 303


async def test_the_result_of_a_reload_is_shown(start: Start) -> None:
    service = await start(**OPERATORS)
    token = await form_token(service)
    done = await service.client.post(
        "/admin/reload", data={"token": token}, headers={"Authorization": OLGA}, follow_redirects=False
    )
    assert (done.status_code, done.headers["Location"]) == (303, "/admin#reload")
    assert "settings not reloaded: PORT" in (await service.get("/admin", {"Authorization": OLGA})).text
    assert [(one.action, one.result) for one in audits(service)] == [("reload", "settings not reloaded: PORT")]
    refused = await service.client.post("/admin/reload", data={"token": "x"}, headers={"Authorization": OLGA})
    assert refused.status_code == 403
    assert len(audits(service)) == 1


async def test_an_action_takes_only_a_form(start: Start) -> None:
    service = await start(**OPERATORS)
    token = await form_token(service)
    answer = await service.client.post("/admin/purge", json={"token": token, **PLACE}, headers={"Authorization": OLGA})
    assert answer.status_code == 400
    assert (await service.get("/admin/reload", {"Authorization": OLGA})).status_code == 405


async def test_the_section_is_in_chinese_too(start: Start) -> None:
    service = await start(**OPERATORS)
    assert "清除" in (await service.get("/admin", {"Authorization": OLGA, "Accept-Language": "zh"})).text


async def explain(service: Service, login: str = OLGA, token: str | None = None, **fields: str) -> Any:
    token = await form_token(service) if token is None else token
    headers = {"Authorization": login, "Origin": f"http://127.0.0.1:{service.port}"}
    return await service.client.post("/admin/why", data={"token": token, **WHY, **fields}, headers=headers)


async def test_a_pull_is_explained_without_names_in_an_address(start: Start) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    assert await pull(service, login=ANN) == 200
    answer = await explain(service, account="ann", address="192.0.2.1")
    assert answer.status_code == 200
    assert parsed(answer.text) is not None
    assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("no-store", "same-origin")
    assert answer.history == []
    for said in ("The mirror allows it", "no rule matches", "Delay after wrong logins", str(Digest.of(MANIFEST))[:19]):
        assert said in answer.text
    assert audits(service) == [
        OperatorActed("olga", "127.0.0.1", "explain", "upstream.test/team/app:v1", "allowed: allowed")
    ]
    assert (await service.get(f"/admin/why?{urlencode(WHY)}", {"Authorization": OLGA})).status_code == 405


@pytest.mark.parametrize(
    ("fields", "said", "result"),
    [
        ({}, "a pull needs the login of one", "refused: login_needed"),
        ({"account": "bob"}, "no account with this name", "refused: account_unknown"),
        ({"account": "olga"}, "no account with this name", "refused: account_unknown"),
        ({"account": "ann"}, "The mirror allows it", "allowed: allowed"),
    ],
)
async def test_each_caller_gets_its_reason(start: Start, fields: dict[str, str], said: str, result: str) -> None:
    service = await start(**ACCOUNTS, **OPERATORS, upstream_identity="anonymous")
    answer = await explain(service, **fields)
    assert said in answer.text
    assert [event.result for event in audits(service)] == [result]
    # A user may type a password as a name.
    assert "bob" not in str(audits(service))


async def test_a_question_about_no_image_leaves_no_audit_event(start: Start) -> None:
    service = await start(**OPERATORS)
    for fields in (
        {"image": ""},
        {"image": "A B:"},
        {"image": "quay.io/org/app"},
        {"image": "team/app@sha256:1"},
        {"address": "home"},
    ):
        answer = await explain(service, **fields)
        assert (answer.status_code, "note problem" in answer.text) == (200, True), fields
        assert parsed(answer.text) is not None
    assert audits(service) == []


async def test_what_an_operator_typed_is_escaped(start: Start) -> None:
    service = await start(**OPERATORS)
    answer = await explain(service, account='"><script>alert(1)</script>')
    assert "<script>alert" not in answer.text
    assert parsed(answer.text) is not None


async def test_a_forged_question_is_not_answered(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    for token in ("", "x", await form_token(service, OTTO)):
        answer = await explain(service, token=token)
        assert (answer.status_code, "team/app" in answer.text) == (403, False)
    token = await form_token(service)
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await service.client.post(
            "/admin/why", data={"token": token, **WHY}, headers={"Authorization": OLGA, **headers}
        )
        assert answer.status_code == 403
    assert audits(service) == []


async def test_the_explanation_is_in_chinese_too(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    token = await form_token(service)
    headers = {"Authorization": OLGA, "Accept-Language": "zh"}
    answer = await service.client.post("/admin/why", data={"token": token, **WHY}, headers=headers)
    assert "允许" in answer.text
    assert parsed(answer.text) is not None
