"""What is remembered of an upstream's way of authenticating, and what may change it."""

import asyncio

import pytest

from application.ports.upstream import ForwardedCredentials
from domain.challenge import Challenge
from domain.errors import (
    RegistryError,
    Unauthorized,
    UpstreamAuthUnknown,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from domain.events import ServiceNameConflict, UpstreamAuthLearned, UpstreamFailed
from domain.trust import UpstreamAuth
from tests.application.support.service import ALICE, Service, accounts, stocked

BEARER_ON_RESOURCE = Challenge.of(
    "Bearer", realm="https://a.test/token", service="a", scope="repository:x:pull", error="invalid_token"
)


async def row(service: Service) -> int:
    return (await service.parts.upstream_auth().row(service.parts.upstream()))[0].number


async def settle() -> None:
    """Let the tasks in the background come to their end."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_answer_is_remembered_for_all() -> None:
    service = Service(stocked("bearer"))

    async def ask() -> list[int]:
        return [await row(service) for _ in range(3)]

    assert service.run(ask()) == [3, 3, 3]
    assert service.upstream.pinged == [ForwardedCredentials(None)]


def test_many_who_wait_share_one_probe() -> None:
    service = Service(stocked("basic"))

    async def ask() -> list[int]:
        return await asyncio.gather(*(row(service) for _ in range(20)))

    assert service.run(ask()) == [4] * 20
    assert len(service.upstream.pinged) == 1


def test_client_that_leaves_takes_no_probe_along() -> None:
    service = Service(stocked("bearer"))

    async def ask() -> int:
        impatient = asyncio.create_task(row(service))
        await asyncio.sleep(0)
        impatient.cancel()
        await settle()
        return await row(service)

    assert service.run(ask()) == 3
    assert len(service.upstream.pinged) == 1


def test_recheck_happens_behind_the_answer() -> None:
    service = Service(stocked("none"))

    async def ask() -> tuple[int, int, int]:
        first = await row(service)
        service.upstream.scheme = "bearer"
        service.clock.advance(3600)
        meanwhile = await row(service)
        await settle()
        return first, meanwhile, await row(service)

    assert service.run(ask()) == (2, 2, 3)
    learnt = [(event.row, event.is_change) for event in service.events if isinstance(event, UpstreamAuthLearned)]
    assert learnt == [(2, False), (3, True)]


@pytest.mark.parametrize(
    "fault", [UpstreamUnreachable("gone"), UpstreamTimedOut("slow"), UpstreamBroken("a page of HTML, or a redirect")]
)
@pytest.mark.parametrize(("scheme", "number"), [("none", 2), ("bearer", 3), ("basic", 4)])
def test_errors_never_change_what_is_known(fault: RegistryError, scheme: str, number: int) -> None:
    service = Service(stocked(scheme))

    async def ask() -> list[int]:
        rows = [await row(service)]
        service.upstream.fault = fault
        for _ in range(3):
            service.clock.advance(3600)
            await settle()
            rows.append(await row(service))
        await settle()
        return rows

    assert service.run(ask()) == [number] * 4
    assert UpstreamFailed("https://upstream.test", fault.message) in service.events


def test_unknown_stance_is_undecided_and_says_why() -> None:
    service = Service(stocked("bearer"))
    service.upstream.fault = UpstreamUnreachable("upstream.test cannot be reached")
    with pytest.raises(UpstreamAuthUnknown, match="cannot be reached"):
        service.run(row(service))


def test_nobody_passes_while_the_stance_is_unknown() -> None:
    service = Service(stocked("none"), accounts=accounts(ALICE))
    service.upstream.fault = UpstreamUnreachable("upstream.test cannot be reached")
    with pytest.raises(UpstreamAuthUnknown):
        service.run(service.manifest(f"Bearer {service.own_token('alice')}"))
    assert service.upstream.asked == []


def test_lost_upstream_is_not_asked_by_everyone() -> None:
    service = Service(stocked("bearer"))
    service.upstream.fault = UpstreamUnreachable("gone")

    async def ask() -> None:
        for _ in range(10):
            with pytest.raises(UpstreamAuthUnknown):
                await row(service)

    service.run(ask())
    assert len(service.upstream.pinged) == 1


def test_returning_upstream_is_noticed_soon() -> None:
    service = Service(stocked("bearer"))
    service.upstream.fault = UpstreamUnreachable("gone")

    async def ask() -> int:
        with pytest.raises(UpstreamAuthUnknown):
            await row(service)
        service.upstream.fault = None
        service.clock.advance(5)
        return await row(service)

    assert service.run(ask()) == 3


@pytest.mark.parametrize(("has_accounts", "before", "after"), [(False, 2, 3), (True, 6, 7)])
def test_bearer_on_a_resource_overrides_none(has_accounts: bool, before: int, after: int) -> None:  # noqa: FBT001
    service = Service(stocked("none"), **({"accounts": accounts(ALICE)} if has_accounts else {}))
    header = f"Bearer {service.own_token('alice')}"

    async def ask() -> tuple[int, int]:
        first = await row(service)
        service.upstream.fault = UpstreamChallenged("authentication required", challenges=(BEARER_ON_RESOURCE,))
        with pytest.raises(Unauthorized) as refused:
            await service.manifest(header)
        assert refused.value.challenges[0].get("service") == "a"
        return first, await row(service)

    assert service.run(ask()) == (before, after)


def test_scope_of_one_resource_is_not_remembered() -> None:
    service = Service(stocked("none"))

    async def ask() -> UpstreamAuth:
        await row(service)
        service.parts.upstream_auth().learn(service.parts.upstream(), UpstreamAuth((BEARER_ON_RESOURCE,)))
        return (await service.parts.upstream_auth().row(service.parts.upstream()))[1]

    assert service.run(ask()) == UpstreamAuth((Challenge.of("Bearer", realm="https://a.test/token", service="a"),))


def test_bearer_on_a_resource_outlives_a_later_recheck() -> None:
    """The ping of such an upstream asks for nothing for ever; the resource's word overrides that."""
    service = Service(stocked("none"))

    async def ask() -> int:
        await row(service)
        service.parts.upstream_auth().learn(service.parts.upstream(), UpstreamAuth((BEARER_ON_RESOURCE,)))
        service.clock.advance(3600)
        await row(service)
        await settle()
        return await row(service)

    assert service.run(ask()) == 3


@pytest.mark.parametrize(("scheme", "number"), [("none", 2), ("bearer", 3), ("basic", 4)])
def test_basic_on_a_resource_overrides_nothing(scheme: str, number: int) -> None:
    service = Service(stocked(scheme))

    async def ask() -> int:
        await row(service)
        service.parts.upstream_auth().learn(service.parts.upstream(), UpstreamAuth((Challenge.of("Basic", realm="x"),)))
        return await row(service)

    assert service.run(ask()) == number


@pytest.mark.parametrize(
    ("settings", "number"),
    [({"skip_auth_proxy": True}, 1), ({"upstream_identity": "anonymous"}, 5)],
)
def test_settled_rows_never_ask_the_upstream(settings: dict[str, object], number: int) -> None:
    service = Service(stocked("bearer"), **settings)
    service.upstream.fault = UpstreamUnreachable("gone")
    assert service.run(row(service)) == number
    assert service.upstream.pinged == []


def test_shared_name_is_told_once_when_learnt() -> None:
    service = Service(stocked("bearer"), self_auth_service="upstream.test")
    service.run(row(service))
    service.run(row(service))
    conflicts = [event for event in service.events if isinstance(event, ServiceNameConflict)]
    assert conflicts == [ServiceNameConflict("https://upstream.test", "upstream.test")]


def test_closing_ends_a_probe_that_hangs() -> None:
    service = Service(stocked("none"))
    service.upstream.ping = hang  # type: ignore[method-assign]

    async def ask() -> None:
        waiting = asyncio.create_task(row(service))
        await settle()
        await service.parts.upstream_auth().close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    service.run(ask())


async def hang(*_: object, **__: object) -> None:
    await asyncio.Event().wait()
