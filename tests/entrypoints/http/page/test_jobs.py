"""The job of an operator on the page: who may begin, watch and cancel it, and what is shown."""

import asyncio
from typing import Any

import pytest

from application.page import run_jobs
from application.ports.jobs import JobState
from domain.digest import Digest
from domain.events import OperatorActed
from tests.entrypoints.conftest import Start
from tests.entrypoints.http.page.test_administration import (
    ACCOUNTS,
    ANN,
    MANIFEST,
    OLGA,
    OPERATORS,
    OTTO,
    audits,
    form_token,
    is_stored,
    parsed,
    pull,
)
from tests.entrypoints.service import Service, basic, until
from tests.fakes.storage import MemoryInode
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.usefixtures("quick_streams")
CHINESE = {"Authorization": OLGA, "Accept-Language": "zh"}


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", MANIFEST)
    return upstream


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_jobs, "_LOOK_SECONDS", 0.01)


async def post(service: Service, action: str, login: str = OLGA, token: str | None = None, **fields: str) -> Any:
    token = await form_token(service, login) if token is None else token
    return await service.client.post(
        f"/admin/{action}", data={"token": token, **fields}, headers={"Authorization": login}, follow_redirects=False
    )


def state(service: Service) -> JobState | None:
    job = service.parts.run_jobs().last()
    return job.state if job else None


async def ended(service: Service) -> None:
    await until(lambda: state(service) not in {None, JobState.RUNNING})


def hold(service: Service) -> asyncio.Event:
    """The verification hashes when this event is set."""
    gate, eviction = asyncio.Event(), service.parts.eviction()
    hash_it = eviction.is_right

    async def is_right(digest: Digest) -> bool | None:
        await gate.wait()
        return await hash_it(digest)

    eviction.is_right = is_right  # type: ignore[method-assign]
    return gate


async def shown(service: Service, headers: dict[str, str] | None = None) -> str:
    answer = await service.get("/admin/job", headers or {"Authorization": OLGA})
    assert answer.status_code == 200
    assert parsed(answer.text) is not None
    return str(answer.text)


async def test_a_verification_is_begun_watched_and_leaves_audit_events(start: Start) -> None:
    service = await start(**OPERATORS)
    assert await pull(service) == 200
    assert "No job has run" in await shown(service)
    inodes: Any = service.parts.store().disk.inodes  # type: ignore[attr-defined]
    inodes[Digest.of(MANIFEST)] = MemoryInode(b"!")
    done = await post(service, "verify")
    assert (done.status_code, done.headers["Location"]) == (303, "/admin/job")
    await ended(service)
    text = await shown(service)
    assert "done" in text
    assert "<dt>Damaged and removed</dt><dd>1</dd>" in text
    assert "/admin/job/cancel" not in text
    assert not await is_stored(service)
    assert 'href="/admin/job"' in (await service.get("/admin", {"Authorization": OLGA})).text
    assert audits(service) == [
        OperatorActed("olga", "127.0.0.1", "verify", "cache", "started"),
        OperatorActed("olga", "127.0.0.1", "verify", "cache", "done; 0 intact, 1 damaged and removed"),
    ]


async def test_a_running_job_refuses_another_and_any_operator_cancels_it(start: Start) -> None:
    service = await start(**OPERATORS)
    assert await pull(service) == 200
    hold(service)
    assert (await post(service, "verify")).status_code == 303
    refused = await post(service, "verify", OTTO)
    assert refused.status_code == 409
    assert "verify cache is running, started by olga" in refused.text
    assert parsed(refused.text) is not None
    assert 'action="/admin/job/cancel"' in await shown(service, {"Authorization": OTTO})
    for number in ("", "x", "2", "0", "-1", "9" * 18, "9" * 500):
        assert (await post(service, "job/cancel", OTTO, number=number)).status_code == 303
    assert state(service) is JobState.RUNNING
    assert (await post(service, "job/cancel", OTTO, number="1")).headers["Location"] == "/admin/job"
    await ended(service)
    assert state(service) is JobState.CANCELLED
    assert "cancelled" in await shown(service)
    assert [(one.operator, one.action) for one in audits(service)] == [
        ("olga", "verify"),
        ("otto", "cancel"),
        ("olga", "verify"),
    ]


@pytest.mark.parametrize("login", [None, ANN, basic("olga", "wrong")])
async def test_only_operators_begin_see_and_cancel_a_job(start: Start, login: str | None) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    headers = {"Authorization": login} if login else {}
    for path in ("/admin/job", "/admin/job/events"):
        answer = await service.get(path, headers)
        assert (answer.status_code, "olga" in answer.text) == (401, False)
    token = await form_token(service)
    for path in ("/admin/verify", "/admin/warm", "/admin/job/cancel"):
        data = {"token": token, "number": "1", "image": "team/app:v1"}
        answer = await service.client.post(path, data=data, headers=headers, follow_redirects=False)
        assert answer.status_code == 401
    assert state(service) is None


async def test_forged_forms_begin_and_cancel_nothing(start: Start) -> None:
    service = await start(**OPERATORS)
    assert await pull(service) == 200
    gate = hold(service)
    ottos = await form_token(service, OTTO)
    for token in ("", "x", ottos):
        assert (await post(service, "verify", token=token)).status_code == 403
        assert (await post(service, "warm", token=token, image="team/app:v1")).status_code == 403
    assert state(service) is None
    assert (await post(service, "verify")).status_code == 303
    for token in ("", "x", ottos):
        assert (await post(service, "job/cancel", token=token, number="1")).status_code == 403
    gate.set()
    await ended(service)
    assert state(service) is JobState.DONE


async def test_without_operators_there_are_no_jobs(start: Start) -> None:
    service = await start(**ACCOUNTS)
    assert (await service.get("/admin/job", {"Authorization": ANN})).status_code == 404
    assert (await service.client.post("/admin/verify", data={})).status_code == 404


async def test_without_a_cache_there_is_nothing_to_verify_or_to_warm(start: Start) -> None:
    service = await start(cache_dir="off", **OPERATORS)
    shown = (await service.get("/admin", {"Authorization": OLGA})).text
    assert "/admin/verify" not in shown
    assert "/admin/warm" not in shown
    for refused in (await post(service, "verify"), await post(service, "warm", image="team/app:v1")):
        assert (refused.status_code, "the cache is off" in refused.text) == (500, True)
    assert state(service) is None


async def test_an_image_is_warmed_and_then_a_hit(start: Start, upstream: FakeUpstream) -> None:
    service = await start(**OPERATORS)
    done = await post(service, "warm", image="docker pull team/app:v1", platforms="linux/amd64, linux/arm/v7")
    assert (done.status_code, done.headers["Location"]) == (303, "/admin/job")
    await ended(service)
    text = await shown(service)
    assert '<span class="name">upstream.test/team/app:v1 linux/amd64 linux/arm/v7</span>' in text
    assert "Damaged" not in text
    assert await is_stored(service)
    since = len(upstream.asked)
    assert (await service.get(f"/v2/team/app/manifests/{Digest.of(MANIFEST)}")).status_code == 200
    assert upstream.asked[since:] == []
    assert [(one.action, one.subject, one.result) for one in audits(service)] == [
        ("warm", "upstream.test/team/app:v1 linux/amd64 linux/arm/v7", "started"),
        ("warm", "upstream.test/team/app:v1 linux/amd64 linux/arm/v7", "done; 0 of 0 bytes cached"),
    ]


async def test_the_error_of_a_failed_warming_is_shown(start: Start) -> None:
    service = await start(**OPERATORS)
    assert (await post(service, "warm", image="team/<b>:v1")).status_code == 400
    assert (await post(service, "warm", image="team/app:unknown")).status_code == 303
    await ended(service)
    text = await shown(service)
    assert ("note problem" in text, ">failed<" in text) == (True, True)


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"image": ""}, 400), ({"image": "A B:"}, 400), ({"image": "quay.io/org/app"}, 404),
     ({"image": "team/app@sha256:1"}, 400), ({"image": "a" * 600}, 400), ({"platforms": "linux"}, 400),
     ({"platforms": "linux/a/b/c"}, 400), ({"platforms": "linux/amd64 " * 40}, 400), ({"platforms": "../é"}, 400)],
)  # fmt: skip
async def test_what_is_no_image_or_no_platform_begins_no_job(start: Start, fields: dict[str, str], status: int) -> None:
    service = await start(**OPERATORS)
    answer = await post(service, "warm", **{"image": "team/app:v1", **fields})
    assert answer.status_code == status
    assert parsed(answer.text) is not None
    assert state(service) is None
    assert audits(service) == []


async def test_an_open_page_follows_the_job(start: Start) -> None:
    service = await start(**OPERATORS)
    assert await pull(service) == 200
    gate = hold(service)
    assert (await post(service, "verify")).status_code == 303
    async with service.wire() as wire:
        await wire.send(f"GET /admin/job/events HTTP/1.1\r\nHost: x\r\nAuthorization: {OLGA}\r\n\r\n")
        seen = b""
        while b"running" not in seen:
            seen += await wire.reader.read(65536)
        gate.set()
        while b"Intact" not in seen or b">done<" not in seen:
            part = await wire.reader.read(65536)
            assert part
            seen += part
        # What the stream sends contains no form: a page that is open for days would get old tokens.
        assert b"<form" not in seen


async def test_the_job_is_shown_in_chinese_too(start: Start) -> None:
    service = await start(**OPERATORS)
    assert await pull(service) == 200
    assert (await post(service, "verify")).status_code == 303
    await ended(service)
    assert "已完成" in await shown(service, CHINESE)
