"""Access rules over HTTP: DENIED reaches the client for every kind of resource, and the upstream hears of none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dependency_injector import providers

from domain.access_rules import AccessRule, AccessRules, Effect
from domain.digest import Digest
from domain.patterns import RepositoryPattern
from entrypoints.settings import Settings
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic
from tests.fakes.parts import opening
from tests.fakes.upstream import FakeUpstream

MANIFEST, BLOB = b'{"schemaVersion":2,"layers":[]}', b"a layer" * 100
BY_DIGEST = str(Digest.of(MANIFEST))
ALICE, BOB = basic("alice", "right"), basic("bob", "right")
ACCOUNTS = ",".join(one.removeprefix("Basic ") for one in (ALICE, BOB))
# Secret things are alice's, all else is everybody's.
RULES = AccessRules(
    (
        AccessRule(Effect.ALLOW, (RepositoryPattern("upstream.test/secret/**"),), ("alice",)),
        AccessRule(Effect.DENY, (RepositoryPattern("secret/**"),)),
    ),
    Effect.ALLOW,
)
RESOURCES = {
    "manifest by tag": "manifests/v1",
    "manifest by digest": f"manifests/{BY_DIGEST}",
    "manifest that is nowhere": "manifests/none",
    "blob": f"blobs/{Digest.of(BLOB)}",
    "tags": "tags/list",
    "referrers": f"referrers/{BY_DIGEST}",
}
EACH = pytest.mark.parametrize("resource", RESOURCES.values(), ids=RESOURCES)
NAMINGS = ["/v2/secret/app/{}", "/upstream.test/v2/secret/app/{}", "/v2/upstream.test/secret/app/{}"]


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    for name in ("secret/app", "open/app"):
        upstream.put_manifest(name, "v1", MANIFEST)
        upstream.put_blob(name, BLOB)
    return upstream


async def ruled(start: Start, upstream: FakeUpstream, **settings: object) -> Service:
    inner = opening(upstream)

    @asynccontextmanager
    async def parts(settings: Settings, worker: int = 0) -> AsyncIterator[Any]:
        async with inner(settings) as opened:
            opened.access_rules.override(providers.Object(RULES))
            yield opened

    return await start(parts=parts, **settings)


def _code(answer: Any) -> str:
    return str(answer.json()["errors"][0]["code"])


@EACH
@pytest.mark.parametrize("hint", NAMINGS)
async def test_a_forbidden_repository_is_denied_without_a_challenge(
    start: Start, upstream: FakeUpstream, resource: str, hint: str
) -> None:
    service = await ruled(start, upstream)
    answer = await service.get(hint.format(resource))
    assert (answer.status_code, _code(answer)) == (403, "DENIED")
    assert "www-authenticate" not in answer.headers
    assert (await service.head(hint.format(resource))).status_code == 403
    assert upstream.asked == []


@EACH
async def test_denied_reaches_the_other_account_whatever_it_shows(
    start: Start, upstream: FakeUpstream, resource: str
) -> None:
    service = await ruled(start, upstream, accounts=ACCOUNTS)
    path = f"/v2/secret/app/{resource}"
    token = await service.token("repository:secret/app:pull", BOB)
    await service.get("/v2/open/app/manifests/v1", {"Authorization": BOB})  # here by now, under another name
    upstream.asked.clear()
    for shown in (BOB, f"Bearer {token}"):
        for others in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"}):
            answer = await service.get(path, {"Authorization": shown, **others})
            assert (answer.status_code, _code(answer)) == (403, "DENIED")
            assert BLOB[:7] not in answer.content
    assert upstream.asked == []


@EACH
async def test_access_rules_decide_and_requests_without_credentials_are_challenged(
    start: Start, upstream: FakeUpstream, resource: str
) -> None:
    service = await ruled(start, upstream, accounts=ACCOUNTS)
    path = f"/v2/secret/app/{resource}"
    bare = await service.get(path)
    assert (bare.status_code, _code(bare)) == (401, "UNAUTHORIZED")
    assert bare.headers["www-authenticate"].startswith("Bearer realm=")
    assert upstream.asked == []
    for shown in (ALICE, f"Bearer {await service.token('repository:secret/app:pull', ALICE)}"):
        allowed = await service.get(path, {"Authorization": shown})
        assert allowed.status_code == (404 if resource.endswith("none") else 200)


async def test_a_cached_response_is_only_for_the_caller_who_got_it(start: Start, upstream: FakeUpstream) -> None:
    service = await ruled(start, upstream, accounts=ACCOUNTS)
    path = "/v2/secret/app/manifests/v1"
    alice, bob = [f"Bearer {await service.token('repository:secret/app:pull', one)}" for one in (ALICE, BOB)]
    for _ in range(3):
        assert (await service.get(path, {"Authorization": alice})).status_code == 200
    assert service.client.app.ctx.runtimes.current.response_cache._answers._entries
    upstream.asked.clear()
    assert (await service.get(path, {"Authorization": bob})).status_code == 403
    assert (await service.get(path)).status_code == 401
    assert upstream.asked == []


async def test_lists_and_searches_leave_out_what_is_forbidden(start: Start, upstream: FakeUpstream) -> None:
    service = await ruled(start, upstream, accounts=ACCOUNTS)
    for login, names in ((ALICE, ["open/app", "secret/app"]), (BOB, ["open/app"])):
        headers = {"Authorization": login}
        assert (await service.get("/v2/_catalog", headers)).json() == {"repositories": names}
        found = (await service.get("/v1/search?q=app", headers)).json()["results"]
        assert [one["name"] for one in found] == names


async def test_denials_are_counted_without_a_name(start: Start, upstream: FakeUpstream) -> None:
    service = await ruled(start, upstream)
    service.parts.events.reset_override()
    # They were made at the start, with the events of before.
    for part in (service.parts.rules, service.parts.authorize, service.parts.pull_manifest):
        part.reset()
    await service.get("/v2/secret/app/manifests/v1")
    page = (await service.get("/metrics")).text
    assert "docker_image_proxy_pulls_denied_total 1.0" in page
    assert "secret" not in page
