"""What is at hand for an account is at hand no longer than there is that account with that password."""

from pathlib import Path

import pytest

from domain.events import LoginDelayed
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import basic
from tests.fakes.clock import StoppedClock
from tests.fakes.htpasswd import lines_of, write
from tests.fakes.parts import opening
from tests.fakes.upstream import FakeUpstream

PATH = "/v2/team/app/manifests/v1"


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", b'{"schemaVersion" : 2,  "layers": [],  "config": {}}')
    return upstream


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("change", [{"bob": "open"}, {"alice": "new", "bob": "open"}])
async def test_a_changed_account_gets_no_cached_response(
    start: Start, upstream: FakeUpstream, tmp_path: Path, change: dict[str, str], *, by_token: bool
) -> None:
    clock = StoppedClock()
    write(file := tmp_path / "htpasswd", lines_of({"alice": "right"}))
    service = await start(parts=opening(upstream, clock), htpasswd_file=file, upstream_identity="anonymous")
    login = basic("alice", "right")
    scope = "repository:team/app:pull"
    authorization = f"Bearer {await service.token(scope, login)}" if by_token else login
    hot, found = service.client.app.ctx.runtimes.current.response_cache, []
    find = hot.find
    hot.find = lambda request: found.append(find(request)) or found[-1]
    request = f"GET {PATH} HTTP/1.1\nHost: a\nAuthorization: {authorization}"
    for _ in range(3):
        assert (await service.ask(request)).status == 200
    assert bool(found[-1]) is by_token, "not at hand, so this test could not fail"
    write(file, lines_of(change))
    clock.advance(1)
    answer = await service.ask(request)
    assert found[-1] is None
    assert answer.status == 401


async def test_a_response_to_a_password_is_not_cached(start: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    """A client at another address that guesses the password is slowed, even if its request has the same bytes."""
    write(file := tmp_path / "htpasswd", lines_of({"alice": "right"}))
    service = await start(parts=opening(upstream), htpasswd_file=file, upstream_identity="anonymous")
    request = f"GET {PATH} HTTP/1.1\nHost: a\nAuthorization: "
    for _ in range(3):
        assert (await service.ask(request + basic("alice", "right"))).status == 200
    for number in range(3):
        assert (await service.ask(request + basic("alice", f"guess {number}"), "127.0.0.2")).status == 401
    slowed = LoginDelayed("alice", "127.0.0.2", 1)
    assert slowed not in service.parts.events().events
    assert (await service.ask(request + basic("alice", "right"), "127.0.0.2")).status == 200
    assert slowed in service.parts.events().events


async def test_an_answer_is_not_kept_for_an_account_that_changed_while_it_was_made(
    start: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    clock = StoppedClock()
    write(file := tmp_path / "htpasswd", lines_of({"alice": "right"}))
    service = await start(parts=opening(upstream, clock), htpasswd_file=file, upstream_identity="anonymous")
    token = await service.token("repository:team/app:pull", basic("alice", "right"))
    request = f"GET {PATH} HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"
    assert (await service.ask(request)).status == 200
    hot, kept = service.client.app.ctx.runtimes.current.response_cache, []
    keep = hot.keep

    def keep_after_a_change(*answer: object) -> None:
        write(file, lines_of({"alice": "new"}))
        clock.advance(1)
        kept.append(answer)
        keep(*answer)

    hot.keep = keep_after_a_change
    assert (await service.ask(request)).status == 200
    assert kept, "nothing was offered, so this test could not fail"
    assert (await service.ask(request)).status == 401
