"""The token endpoint over HTTP."""

import json
import re
from typing import Any

import pytest

from domain.access import Credentials
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic
from tests.fakes.codec import PlainTokenCodec
from tests.fakes.upstream import FakeUpstream

FORM = "application/x-www-form-urlencoded"
ANN = basic("ann", "pässword")
ACCOUNTS = ANN.split()[1]
PASSWORD_GRANT = {"grant_type": "password", "username": "ann", "password": "pässword", "client_id": "c", "service": "s"}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def _assert_token(answer: Any, scope: str) -> None:
    document = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert document["token"] == document["access_token"]
    assert document["expires_in"] >= 60
    assert RFC_3339.fullmatch(document["issued_at"])
    assert document["scope"] == scope


def _access(token: str) -> list[dict[str, Any]]:
    """The access claim of a token of ours, which is a JWS whose middle part anybody can read."""
    middle = ".".join(["e30", token.split(".")[1], "e30"])
    signed = PlainTokenCodec().read_unverified(middle)
    assert signed is not None
    return list(signed.claims["access"])


async def test_get_gives_an_anonymous_token(start: Start) -> None:
    answer = await (await start()).get("/v2/auth?service=docker-image-proxy&scope=repository:a/b:pull")
    _assert_token(answer, "repository:a/b:pull")
    assert "refresh_token" not in answer.json()


async def test_post_gives_the_same_token(start: Start) -> None:
    service = await start(accounts=ACCOUNTS)
    form = PASSWORD_GRANT | {"scope": "repository:a/b:pull repository:c:pull"}
    answer = await service.post("/v2/auth", form, {"Content-Type": f"{FORM}; charset=utf-8"})
    _assert_token(answer, "repository:a/b:pull repository:c:pull")


@pytest.mark.parametrize("content_type", [FORM, FORM.upper(), f"{FORM};charset=UTF-8", f"{FORM} ; charset=utf-8"])
async def test_form_type_counts_without_parameters(start: Start, content_type: str) -> None:
    answer = await (await start(accounts=ACCOUNTS)).post("/v2/auth", PASSWORD_GRANT, {"Content-Type": content_type})
    assert answer.status_code == 200


async def test_repeated_and_joined_scopes_both_count(start: Start) -> None:
    service = await start()
    query = "scope=repository:a:pull&scope=repository:b/c:pull%20registry:catalog:*&scope=repository:a:pull&scope="
    answer = await service.get(f"/v2/auth?{query}")
    _assert_token(answer, "repository:a:pull repository:b/c:pull registry:catalog:*")
    assert [entry["name"] for entry in _access(answer.json()["token"])] == ["a", "b/c", "catalog"]


async def test_unknown_scopes_are_dropped_in_silence(start: Start) -> None:
    scopes = "aws", "repository(plugin):a/b:pull", "registry:catalog:delete", "repository:mirror.test:5000/a:pull"
    answer = await (await start()).get("/v2/auth?" + "&".join(f"scope={one}" for one in scopes))
    assert (answer.status_code, answer.json()["scope"]) == (200, "")


async def test_push_is_never_granted_here(start: Start) -> None:
    answer = await (await start()).get("/v2/auth?scope=repository:a/b:push,pull,delete,*")
    _assert_token(answer, "repository:a/b:pull")


@pytest.mark.parametrize("by_post", [False, True])
async def test_malformed_scopes_reach_no_upstream(start: Start, upstream: FakeUpstream, *, by_post: bool) -> None:
    upstream.scheme = "bearer"
    service = await start()
    malformed = ("repository:A:pull", "repository::pull", "a:b:c d:e:F", 'x"y', "repository:a/../b:pull", "a" * 1025)
    for scope in (*malformed, "repository:a:pull\r\nX: y", " ".join(f"s{number}" for number in range(65))):
        form = {"grant_type": "password", "username": "a", "password": "b", "scope": scope}
        asked = service.post("/v2/auth", form) if by_post else service.client.get("/v2/auth", params={"scope": scope})
        answer = await asked
        assert (answer.status_code, answer.json()["errors"][0]["code"]) in {(400, "UNSUPPORTED"), (400, "NAME_INVALID")}
    assert upstream.relayed == []


async def test_wrong_credentials_are_refused_by_get(start: Start) -> None:
    service = await start(accounts=ACCOUNTS)
    for authorization in (basic("ann", "no"), basic("bob", "pässword"), basic("", "pässword"), basic("ann", "")):
        answer = await service.get("/v2/auth", {"Authorization": authorization})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["www-authenticate"] == 'Basic realm="docker-image-proxy"'


async def test_wrong_credentials_are_refused_by_post(start: Start) -> None:
    service = await start(accounts=ACCOUNTS)
    for wrong in ({"password": "no"}, {"username": "bob"}, {"username": ""}, {"password": ""}):
        answer = await service.post("/v2/auth", PASSWORD_GRANT | wrong)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")
        assert (answer.json()["error"], answer.headers["cache-control"]) == ("invalid_grant", "no-store")


async def test_post_refusal_bears_a_challenge_too(start: Start) -> None:
    # RFC 9110 section 15.5.2: a 401 MUST say how to authenticate.
    answer = await (await start(accounts=ACCOUNTS)).post("/v2/auth", PASSWORD_GRANT | {"password": "no"})
    assert answer.headers.get("www-authenticate") == 'Basic realm="docker-image-proxy"'


async def test_no_credentials_are_no_account(start: Start) -> None:
    service = await start(accounts=ACCOUNTS)
    for headers in ({}, {"Authorization": basic("", "")}):
        assert (await service.get("/v2/auth", headers)).status_code == 401


async def test_refresh_grant_is_no_account(start: Start, upstream: FakeUpstream) -> None:
    upstream.scheme, upstream.refresh_token = "bearer", "refresh"
    form = {"grant_type": "refresh_token", "refresh_token": "refresh", "client_id": "c", "service": "s"}
    for identity in ("client", "anonymous"):
        service = await start(accounts=ACCOUNTS, upstream_identity=identity)
        answer = await service.post("/v2/auth", form)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")
    assert upstream.relayed == []


@pytest.mark.parametrize(
    "changes",
    [{"grant_type": "authorization_code"}, {"grant_type": ""}, {"grant_type": "refresh_token", "refresh_token": ""}],
)
async def test_unknown_grant_is_a_bad_request(start: Start, changes: dict[str, str]) -> None:
    answer = await (await start()).post("/v2/auth", PASSWORD_GRANT | changes)
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
    assert answer.json()["errors"][0]["code"] == "UNSUPPORTED"
    assert answer.headers["cache-control"] == "no-store"


async def test_body_that_is_no_form_is_refused(start: Start) -> None:
    service = await start()
    bodies = {"application/json": json.dumps(PASSWORD_GRANT).encode(), "text/plain": b"a=b", FORM: b"\xff\xfe=%zz"}
    for content_type, body in bodies.items():
        answer = await service.client.post("/v2/auth", content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "UNSUPPORTED"), content_type
    assert (await service.ask("POST /v2/auth HTTP/1.1\nHost: a\nContent-Length: 0")).status == 400


@pytest.mark.parametrize("framing", ["length", "chunks", "continue"])
async def test_form_may_come_in_any_framing(start: Start, framing: str) -> None:
    form = b"grant_type=password&username=ann&password=p%C3%A4ssword"
    head = f"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\n".encode()
    length = b"Content-Length: %d\r\n" % len(form)
    async with (await start(accounts=ACCOUNTS)).wire() as wire:
        if framing == "chunks":
            chunks = b"a\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (form[:10], len(form) - 10, form[10:])
            await wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        elif framing == "continue":
            await wire.send(head + length + b"Expect: 100-continue\r\n\r\n")
            assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await wire.send(form)
        else:
            await wire.send(head + length + b"\r\n" + form)
        assert (await wire.answer()).status == 200


async def test_form_of_any_size_is_bounded(start: Start) -> None:
    answer = await (await start()).post("/v2/auth", PASSWORD_GRANT | {"scope": "s" * 70_000})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (413, "SIZE_INVALID")


@pytest.mark.parametrize("authorization", ["Bearer abc", "Basic", "Basic ???", "Negotiate x", "nonsense"])
async def test_authorization_that_is_not_basic_is_refused(start: Start, authorization: str) -> None:
    answer = await (await start()).get("/v2/auth", {"Authorization": authorization})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")


async def test_empty_basic_is_the_anonymous_caller(start: Start, upstream: FakeUpstream) -> None:
    upstream.scheme = "bearer"
    answer = await (await start()).get("/v2/auth?service=upstream.test", {"Authorization": basic("", "")})
    assert answer.status_code == 200
    assert upstream.relayed[0].credentials is None


async def test_relay_passes_what_the_caller_sent(start: Start, upstream: FakeUpstream) -> None:
    upstream.scheme, upstream.users, upstream.refresh_token = "bearer", {"ann": "pässword"}, "refresh"
    service = await start()
    query = "service=upstream.test&scope=repository:a/b:pull&offline_token=true&client_id=docker&account=ann"
    answer = await service.get(f"/v2/auth?{query}", {"Authorization": ANN})
    _assert_token(answer, "repository:a/b:pull")
    assert answer.json()["token"] == "upstream-token-of-ann="
    assert answer.json()["refresh_token"] == "refresh"
    asked = upstream.relayed[0]
    assert (asked.credentials, asked.offline, asked.client_id) == (Credentials("ann", "pässword"), True, "docker")


async def test_relay_takes_a_refresh_token(start: Start, upstream: FakeUpstream) -> None:
    upstream.scheme, upstream.refresh_token = "bearer", "refresh"
    form = {"grant_type": "refresh_token", "refresh_token": "refresh", "access_type": "offline", "client_id": "c"}
    answer = await (await start()).post("/v2/auth", form)
    assert (answer.status_code, answer.json()["refresh_token"]) == (200, "refresh")
    assert (await (await start()).post("/v2/auth", form | {"refresh_token": "other"})).status_code == 401


async def test_countersigned_answer_has_no_refresh_token(start: Start, upstream: FakeUpstream) -> None:
    upstream.scheme, upstream.users, upstream.refresh_token = "bearer", {"ann": "pässword"}, "refresh"
    service = await start(accounts=ACCOUNTS)
    answer = await service.get("/v2/auth?scope=repository:a:pull&offline_token=true", {"Authorization": ANN})
    _assert_token(answer, "repository:a:pull")
    assert answer.json()["token"].endswith("~upstream-token-of-ann=")
    assert "refresh_token" not in answer.json()


@pytest.mark.parametrize("settings", [{"skip_auth_proxy": True}, {}, {"accounts": ACCOUNTS}])
async def test_rows_without_tokens_answer_not_found(
    start: Start, upstream: FakeUpstream, settings: dict[str, object]
) -> None:
    upstream.scheme = "basic"
    service: Service = await start(**settings)
    for answer in (await service.get("/v2/auth"), await service.post("/v2/auth", PASSWORD_GRANT)):
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "UNSUPPORTED")


@pytest.mark.parametrize("settings", [{"skip_auth_proxy": True}, {}, {"accounts": ACCOUNTS}])
async def test_rows_without_tokens_ignore_the_caller(
    start: Start, upstream: FakeUpstream, settings: dict[str, object]
) -> None:
    upstream.scheme = "basic"
    service = await start(**settings)
    for authorization in (ANN, basic("eve", "x"), "Bearer x", "nonsense"):
        answer = await service.get("/v2/auth", {"Authorization": authorization})
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (404, None), authorization


async def test_lifetime_is_the_one_set(start: Start) -> None:
    assert (await (await start(token_ttl=77)).get("/v2/auth")).json()["expires_in"] == 77
