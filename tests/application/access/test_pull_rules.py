"""The operator's access rules, before every resource and in every row of the trust table."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from application.access.access_request import Caller
from application.upkeep.warm import Image
from domain.access import ANONYMOUS
from domain.access_rules import AccessRules, Effect
from domain.authorization import parse_authorization
from domain.errors import Denied, Unauthorized
from domain.events import PullDenied
from domain.names import Reference, RepositoryName
from tests.application.access.test_authorize import service_in
from tests.application.support.callers import header_of
from tests.application.support.ruled import CLOSED, FOR_ACCOUNTS, rule, ruled
from tests.application.support.service import (
    ALICE,
    BOB,
    IMAGE_CONTENT,
    IMAGE_DIGEST,
    LAYER,
    NAME,
    PRIVATE,
    REALM,
    Service,
    accounts,
    basic,
    stocked,
)
from tests.application.support.trust_table import ROWS, TARGETS, lines
from tests.fakes.parts import memory_storage

Ask = Callable[[Service, str | None], Coroutine[Any, Any, Any]]
WITHOUT_ACCOUNTS = [row for row, (_, _, _, checks_accounts, _) in ROWS.items() if not checks_accounts]


async def _referrers(service: Service, header: str | None) -> object:
    caller = Caller(parse_authorization(header), REALM)
    return await service.parts.listings().referrers(caller, NAME, IMAGE_DIGEST, ())


RESOURCES: dict[str, Ask] = {
    "manifest by tag": lambda service, header: service.manifest(header),
    "manifest by digest": lambda service, header: service.manifest(header, reference=str(IMAGE_DIGEST)),
    "manifest by HEAD": lambda service, header: service.manifest(header, head=True),
    "known manifest": lambda service, header: service.manifest(header, known=frozenset({str(IMAGE_DIGEST)})),
    "blob": lambda service, header: service.blob(header),
    "blob by HEAD": lambda service, header: service.blob(header, head=True),
    "known blob": lambda service, header: service.blob(header, known=True),
    "tags": lambda service, header: service.tags(header),
    "referrers": _referrers,
}


def _denials(service: Service) -> list[PullDenied]:
    return [event for event in service.events if isinstance(event, PullDenied)]


def _kept_out(row: str, caller: str, account: str, cells: list[str], rules: AccessRules) -> None:
    service = ruled(service_in(row), rules)
    header = header_of(caller, service, account)
    service.run(service.warm_up())
    for target, cell in zip(TARGETS, cells, strict=True):
        if target in {"manifest", "blob", "tags"}:
            meets, asked = cell.split("/")
            # Whom only the upstream would have stopped does not come that far. That a token lacks the scope is no
            # answer either: the next one would lack it too.
            is_denied = asked != "-" or meets.endswith("?")
            with pytest.raises(Denied if is_denied else Unauthorized):
                service.run(getattr(service, target)(header))
    assert (service.upstream.asked, service.upstream.relayed, service.upstream.pinged) == ([], [], [])


@pytest.mark.parametrize(("row", "caller", "cells"), lines(), ids=lambda value: value if isinstance(value, str) else "")
def test_rules_stop_whoever_got_through_and_nobody_else_hears_of_them(row: str, caller: str, cells: list[str]) -> None:
    _kept_out(row, caller, "alice" if ROWS[row][3] else ANONYMOUS, cells, CLOSED)


@pytest.mark.parametrize(
    ("row", "caller", "cells"),
    [line for line in lines() if line[0] in WITHOUT_ACCOUNTS],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nobody_has_an_account_where_none_is_checked(row: str, caller: str, cells: list[str]) -> None:
    """A token of ours that names one is of other days, and a login is the upstream's."""
    _kept_out(row, caller, "alice", cells, FOR_ACCOUNTS)


@pytest.mark.parametrize("resource", RESOURCES)
def test_forbidden_repository_is_not_spoken_of_though_it_is_here(resource: str) -> None:
    upstream, storage = stocked("none"), memory_storage()
    before = Service(upstream, storage=storage, accounts=accounts(ALICE))
    after = ruled(Service(upstream, storage=storage, accounts=accounts(ALICE)), CLOSED)

    async def fill() -> None:
        for ask in RESOURCES.values():
            await ask(before, basic(ALICE))

    before.run(fill())
    upstream.asked.clear()
    with pytest.raises(Denied):
        after.run(RESOURCES[resource](after, basic(ALICE)))
    assert upstream.asked == []
    assert _denials(after) == [PullDenied("alice", "https://upstream.test", "public/app")]


def test_what_one_account_brought_here_is_not_anothers() -> None:
    service = ruled(Service(stocked("none"), accounts=accounts(ALICE, BOB)))

    async def act() -> None:
        assert await service.blob(basic(ALICE), PRIVATE) == LAYER
        assert (await service.manifest(basic(ALICE), PRIVATE)).content == IMAGE_CONTENT
        service.upstream.asked.clear()
        for header in (basic(BOB), f"Bearer {service.own_token('bob')}"):
            with pytest.raises(Denied):
                await service.blob(header, PRIVATE)
            with pytest.raises(Denied):
                await service.manifest(header, PRIVATE)
        assert service.upstream.asked == []
        assert await service.blob(basic(BOB), NAME) == LAYER

    service.run(act())
    assert {event.account for event in _denials(service)} == {"bob"}


def test_whom_only_an_account_lets_in_is_asked_for_one() -> None:
    service = ruled(Service(stocked("none"), accounts=accounts(ALICE)))
    with pytest.raises(Unauthorized):
        service.run(service.manifest())
    assert _denials(service) == []
    assert service.run(service.manifest(basic(ALICE))).content == IMAGE_CONTENT


def test_token_of_an_account_that_is_gone_hears_nothing_of_rules() -> None:
    service = ruled(Service(stocked("none"), accounts=accounts(BOB)), CLOSED)
    with pytest.raises(Unauthorized):
        service.run(service.manifest(f"Bearer {service.own_token('alice')}"))
    assert _denials(service) == []


def test_short_name_of_an_official_image_is_no_way_round() -> None:
    service = Service(stocked("none"), upstream_registry="https://registry-1.docker.io")
    ruled(service, AccessRules((rule(Effect.DENY, "docker.io/library/nginx"),)))
    for name in ("nginx", "library/nginx", "docker.io/nginx", "index.docker.io/library/nginx"):
        with pytest.raises(Denied):
            service.run(service.manifest(name=RepositoryName(name)))
    assert service.upstream.asked == []


def test_operator_is_not_bound() -> None:
    service = ruled(Service(stocked("none")), CLOSED)
    image = Image(NAME, Reference.parse("1"))

    async def warm(*, is_operator: bool) -> None:
        async for _ in service.parts.warm_cache()(Caller(None, REALM, is_operator=is_operator), image):
            pass

    with pytest.raises(Denied):
        service.run(warm(is_operator=False))
    assert service.upstream.asked == []
    service.run(warm(is_operator=True))
    assert service.upstream.asked
