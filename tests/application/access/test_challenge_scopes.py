"""The scope of a challenge: that of the resource that was asked for, whatever the upstream's ping says."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from application.access.access_request import Caller
from application.ports.upstream import PingResponse, UpstreamCredentials
from domain.authorization import parse_authorization
from domain.challenge import Challenge
from domain.digest import Digest
from domain.errors import RegistryError, Unauthorized, UpstreamChallenged
from domain.upstreams import Upstream
from tests.application.support.callers import header_of
from tests.application.support.service import ALICE, PRIVATE, REALM, Service, accounts
from tests.fakes.upstream import FakeUpstream

PLACEHOLDER = "repository:user/image:pull"
OWN = "repository:private/app:pull"
ROWS: dict[str, dict[str, object]] = {
    "3": {},
    "5": {"upstream_identity": "anonymous"},
    "6": {"upstream_identity": "anonymous", "accounts": accounts(ALICE)},
    "7": {"accounts": accounts(ALICE)},
}
Ask = Callable[[Service, str | None], Coroutine[Any, Any, Any]]


def _referrers(service: Service, header: str | None) -> Coroutine[Any, Any, Any]:
    caller = Caller(parse_authorization(header), REALM)
    return service.parts.listings().referrers(caller, PRIVATE, Digest.of(b"subject"), ())


RESOURCES: dict[str, tuple[Ask, str]] = {
    "manifest": (lambda service, header: service.manifest(header, PRIVATE), OWN),
    "blob": (lambda service, header: service.blob(header, PRIVATE), OWN),
    "tags": (lambda service, header: service.tags(header, PRIVATE), OWN),
    "referrers": (_referrers, OWN),
    "catalog": (lambda service, header: service.catalog(header), "registry:catalog:*"),
}


class Pinged(FakeUpstream):
    """As ghcr.io: the challenge to the ping names a repository that nobody has asked for. `repeats`: so do all."""

    repeats = False

    async def ping(self, upstream: Upstream, right: UpstreamCredentials, *, is_probe: bool = False) -> PingResponse:
        answer = await super().ping(upstream, right, is_probe=is_probe)
        if answer.accepted:
            return answer
        return PingResponse(accepted=False, challenges=(super().challenge(PLACEHOLDER),))

    def challenge(self, scope: str | None = None, error: str | None = None) -> Challenge:
        return super().challenge(PLACEHOLDER if self.repeats else scope, error)


def upstream(*, repeats: bool = False) -> Pinged:
    pinged = Pinged("bearer", users={"alice": "right"}, public=set())
    pinged.repeats = repeats
    return pinged


def refusal(service: Service, ask: Ask, header: str | None) -> RegistryError:
    async def act() -> None:
        await service.warm_up()
        await ask(service, header)

    with pytest.raises(RegistryError) as refused:
        service.run(act())
    return refused.value


def scopes(error: RegistryError) -> list[str | None]:
    assert isinstance(error, Unauthorized)
    return [challenge.get("scope") for challenge in error.challenges]


@pytest.mark.parametrize(
    ("row", "resource"),
    # The catalog is open to all there, as far as an anonymous token opens it upstream.
    [(row, resource) for row in ("3", "7") for resource in RESOURCES if (row, resource) != ("3", "catalog")],
)
@pytest.mark.parametrize("repeats", [False, True])
def test_who_brings_no_token_is_asked_for_the_resources_own_scope(row: str, resource: str, *, repeats: bool) -> None:
    service, (ask, scope) = Service(upstream(repeats=repeats), **ROWS[row]), RESOURCES[resource]
    assert scopes(refusal(service, ask, None)) == [scope]


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("repeats", [False, True])
def test_a_token_that_the_upstream_refuses_earns_the_resources_own_scope(resource: str, *, repeats: bool) -> None:
    service, (ask, scope) = Service(upstream(repeats=repeats)), RESOURCES[resource]
    assert scopes(refusal(service, ask, "Bearer unknown")) == [scope]


@pytest.mark.parametrize("row", ["3", "5", "6", "7"])
@pytest.mark.parametrize("caller", ["own expired", "unreadable"])
def test_a_token_that_we_refuse_earns_the_resources_own_scope(row: str, caller: str) -> None:
    service = Service(upstream(), **ROWS[row])
    header = header_of(caller, service, "alice" if "accounts" in ROWS[row] else "")
    assert scopes(refusal(service, RESOURCES["manifest"][0], header)) == [OWN]


@pytest.mark.parametrize("row", ["3", "7"])
@pytest.mark.parametrize(
    ("scope", "kept"), [(PLACEHOLDER, None), ("aws", "aws"), ("registry:catalog:*", "registry:catalog:*")]
)
def test_the_ping_keeps_what_is_meant_for_all(row: str, scope: str, kept: str | None) -> None:
    pinged = upstream()
    pinged.fault = UpstreamChallenged("authentication required", challenges=(FakeUpstream("bearer").challenge(scope),))
    service = Service(pinged, **ROWS[row])

    async def act() -> None:
        async def ping(_: Upstream, __: UpstreamCredentials, *, is_probe: bool = False) -> PingResponse:
            return PingResponse(accepted=False, challenges=(FakeUpstream("bearer").challenge(scope),))

        pinged.ping = ping  # type: ignore[method-assign]
        await service.ping()

    with pytest.raises(Unauthorized) as refused:
        service.run(act())
    assert scopes(refused.value) == [kept]
