"""The application as a whole: its parts, its limits, its pages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from entrypoints.http.app import create_app
from entrypoints.http.routes.pull_routes import PREFIX
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container
from tests.entrypoints.conftest import Start
from tests.fakes.parts import container_of, settings_of
from tests.fakes.upstream import FakeUpstream

PAGES = {
    "/v2": {"GET", "HEAD"},
    "/v2/": {"GET", "HEAD"},
    "/v2/auth": {"GET", "POST"},
    "/v2/_catalog": {"GET", "HEAD"},
    "/v2/<path:path>": {"GET", "HEAD"},
    "/v1/_ping": {"GET"},
    "/v1/search": {"GET"},
    "/livez": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
    "/readyz": {"GET", "HEAD"},
    "/": {"GET", "HEAD"},
    "/browse": {"GET", "HEAD"},
    "/browse/image": {"GET", "HEAD"},
    "/browse/repository": {"GET", "HEAD"},
    "/browse/search": {"GET", "HEAD"},
    "/history": {"GET", "HEAD"},
    "/now": {"GET", "HEAD"},
    "/now/events": {"GET"},
    "/pulls": {"GET", "HEAD"},
    "/pulls/events": {"GET"},
    "/admin": {"GET", "HEAD"},
    "/admin/job": {"GET", "HEAD"},
    "/admin/job/events": {"GET"},
    "/admin/job/cancel": {"POST"},
    "/admin/purge": {"GET", "HEAD", "POST"},
    "/admin/pins": {"GET", "HEAD", "POST"},
    "/admin/pins/unpin": {"POST"},
    "/admin/reload": {"POST"},
    "/admin/verify": {"POST"},
    "/admin/warm": {"POST"},
    "/admin/why": {"POST"},
    "/login": {"GET", "HEAD"},
    "/static/<name:str>": {"GET", "HEAD"},
}


def test_pages_are_these_and_no_others() -> None:
    found: dict[str, set[str]] = {}
    for route in create_app(settings_of(), "pages_of_the_service").router.routes:
        found.setdefault(route.uri, set()).update(route.methods)
    named = {f"/<prefix:{PREFIX}>{uri}": {"GET", "HEAD"} for uri in ("/v2", "/v2/<path:path>")}
    assert found == PAGES | named


def test_limits_and_names_stay_with_us() -> None:
    config = create_app(settings_of(shutdown_grace=7), "limits_of_the_service").config
    assert config.GRACEFUL_SHUTDOWN_TIMEOUT == 7
    assert config.REQUEST_MAX_HEADER_SIZE >= 32 * 1024
    assert config.REQUEST_MAX_SIZE <= 64 * 1024
    assert (config.ACCESS_LOG, config.MOTD) == (False, False)
    assert config.KEEP_ALIVE_TIMEOUT >= 60


async def test_parts_open_once_and_close(start: Start, upstream: FakeUpstream) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def parts(settings: Settings, worker: int) -> AsyncIterator[Container]:
        seen.append("open")
        yield container_of(settings, upstream)
        seen.append("closed")

    service = await start(parts=parts)
    assert seen == ["open"]
    for _ in range(2):
        await service.get("/v2/")
    await service.client.app._server_event("shutdown", "after", asyncio.get_running_loop())
    assert seen == ["open", "closed"]


@pytest.mark.parametrize("path", ["/v2/", "/v2/auth", "/v2/x", "/v1/_ping", "/v1/search", "/livez", "/readyz", "/no"])
async def test_every_answer_names_the_api(start: Start, path: str) -> None:
    answers = [await (service := await start()).get(path), await service.client.delete(path)]
    assert {answer.headers.get("docker-distribution-api-version") for answer in answers} == {"registry/2.0"}
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


async def test_no_answer_is_ever_compressed(start: Start, upstream: FakeUpstream) -> None:
    digest = upstream.put_blob("a", b"a" * 100_000)
    upstream.put_manifest("a", "v1", b'{"schemaVersion":2,"a":"' + b"a" * 10_000 + b'"}')
    service = await start()
    for path in ("/v2/a/manifests/v1", f"/v2/a/blobs/{digest}", "/v2/a/tags/list", "/v2/_catalog", "/v2/auth"):
        answer = await service.get(path, {"Accept-Encoding": "gzip, deflate, br, zstd"})
        assert (answer.status_code, answer.headers.get("content-encoding")) == (200, None), path


async def test_answers_name_no_server_software(start: Start) -> None:
    headers = (await (await start()).get("/v2/")).headers
    assert not {"server", "x-powered-by", "set-cookie"} & set(headers)


async def test_two_services_share_no_state(start: Start, upstream: FakeUpstream) -> None:
    first, second = await start(self_auth_service="first"), await start(self_auth_service="second")
    for service, name in ((first, "first"), (second, "second")):
        assert f'service="{name}"' in (await service.get("/v2/")).headers["www-authenticate"]
    token = await first.token()
    assert (await first.get("/v2/", {"Authorization": f"Bearer {token}"})).status_code == 200
    assert (await second.get("/v2/", {"Authorization": f"Bearer {token}"})).status_code == 401
