"""Wrong logins at every door where a password is taken, as their sender meets it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from domain.events import LoginDelayed, LoginRejected
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic
from tests.fakes.htpasswd import lines_of, write

FORM = {"grant_type": "password", "service": "docker-image-proxy", "client_id": "x", "username": "ann"}


async def by_get(service: Service, number: int, headers: dict[str, str]) -> Any:
    return await service.get("/v2/auth", {"Authorization": basic("ann", f"guess {number}"), **headers})


async def by_post(service: Service, number: int, headers: dict[str, str]) -> Any:
    return await service.post("/v2/auth", {**FORM, "password": f"guess {number}"}, headers)


async def by_basic(service: Service, number: int, headers: dict[str, str]) -> Any:
    return await service.get("/v2/", {"Authorization": basic("ann", f"guess {number}"), **headers})


EACH = pytest.mark.parametrize("door", [by_get, by_post, by_basic])


@pytest.fixture(params=["accounts", "htpasswd_file"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """ann's account, kept in either way."""
    if request.param == "accounts":
        return {"accounts": basic("ann", "right").split()[1]}
    write(tmp_path / "htpasswd", lines_of({"ann": "right"}))
    return {"htpasswd_file": tmp_path / "htpasswd"}


@EACH
async def test_too_many_requests_at_once_get_a_retry_after(
    start: Start, settings: dict[str, object], door: Any
) -> None:
    service = await start(**settings)
    answers = await asyncio.gather(*(door(service, number, {}) for number in range(16)))
    assert {answer.status_code for answer in answers} == {401, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    for answer in refused:
        seconds = int(answer.headers["retry-after"])
        assert 10 < seconds <= 15
        assert answer.json() == {
            "errors": [
                {
                    "code": "TOOMANYREQUESTS",
                    "message": f"too many wrong logins; try again in {seconds} seconds",
                    "detail": {"request_id": answer.headers["x-request-id"]},
                }
            ]
        }
    events = service.parts.events().events
    assert LoginDelayed("ann", "127.0.0.1", 1) in events
    assert sum(isinstance(event, LoginRejected) for event in events) == len(refused)
    assert "guess" not in json.dumps([repr(event) for event in events])


async def test_failed_logins_of_all_routes_count_together(start: Start, settings: dict[str, object]) -> None:
    service = await start(**settings)
    for number, door in enumerate((by_get, by_post, by_basic)):
        assert (await door(service, number, {})).status_code == 401
    assert [event for event in service.parts.events().events if isinstance(event, LoginDelayed)] == []
    assert (await by_get(service, 3, {})).status_code == 401
    assert LoginDelayed("ann", "127.0.0.1", 1) in service.parts.events().events


@EACH
async def test_a_trusted_proxy_names_the_client_whose_logins_are_counted(
    start: Start, settings: dict[str, object], door: Any
) -> None:
    service = await start(**settings, trusted_proxies="127.0.0.0/8")
    for number in range(12):
        answer = await door(service, number, {"X-Forwarded-For": f"192.0.2.{number}"})
        assert answer.status_code == 401
    assert [event for event in service.parts.events().events if isinstance(event, LoginDelayed)] == []
    for number in range(4):
        await door(service, number, {"X-Forwarded-For": "198.51.100.7"})
    assert LoginDelayed("ann", "198.51.100.7", 1) in service.parts.events().events


async def test_the_right_login_of_the_file_opens_every_door(start: Start, settings: dict[str, object]) -> None:
    service = await start(**settings)
    login = {"Authorization": basic("ann", "right")}
    token = (await service.get("/v2/auth", login)).json()["token"]
    assert (await service.post("/v2/auth", {**FORM, "password": "right"})).status_code == 200
    for headers in (login, {"Authorization": f"Bearer {token}"}):
        assert (await service.get("/v2/", headers)).status_code == 200
    assert (await service.get("/v2/")).status_code == 401
