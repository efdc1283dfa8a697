"""The trust table, cell by cell, and what it does not have a column for."""

import pytest

from application.ports.upstream import (
    ForwardedCredentials,
    SessionCredentials,
    UpstreamCredentials,
    mirror_credentials,
)
from domain.access import ANONYMOUS, Credentials, ScopeSet
from domain.challenge import Challenge
from domain.errors import Unauthorized
from tests.application.support.callers import UPSTREAM_TOKEN, header_of
from tests.application.support.service import ALICE, BOB, PRIVATE, REALM, Service, accounts, basic, in_base64, stocked
from tests.application.support.trust_table import ROWS, TARGETS, lines

_ERRORS = {"!": "invalid_token", "?": "insufficient_scope"}
_SCOPES = {
    "ping": None,
    "manifest": "repository:public/app:pull",
    "blob": "repository:public/app:pull",
    "tags": "repository:public/app:pull",
    "catalog": "registry:catalog:*",
    "search": "registry:catalog:search",
}


def service_in(row: str) -> Service:
    number, scheme, identity, checks_accounts, _ = ROWS[row]
    settings: dict[str, object] = {"skip_auth_proxy": number == 1}
    if identity:
        settings["upstream_identity"] = identity
    if identity == "service":
        settings |= {"upstream_username": "alice", "upstream_password": "right"}
    if checks_accounts:
        settings["accounts"] = accounts(ALICE)
    return Service(stocked(scheme), **settings)


async def meet(service: Service, target: str, header: str | None) -> tuple[object, list[UpstreamCredentials]]:
    """What the caller meets, and with which rights the upstream was asked for it."""
    await service.warm_up()
    service.upstream.asked.clear()
    try:
        await getattr(service, target)(header)
    except Unauthorized as refused:
        met: object = refused.challenges
    else:
        met = "ok"
    rights = [*service.upstream.pinged, *(fetch.credentials for fetch in service.upstream.asked)]
    return met, list(dict.fromkeys(rights))  # a login is proven with the same right before it is used


async def meet_all(service: Service, header: str | None) -> dict[str, tuple[object, list[UpstreamCredentials]]]:
    return {target: await meet(service, target, header) for target in TARGETS}


def expected(service: Service, cell: str, target: str, header: str | None) -> tuple[object, list[UpstreamCredentials]]:
    meets, asked = cell.split("/")
    challenge = "ok" if meets == "ok" else (expected_challenge(service, meets, target, header),)
    return challenge, expected_rights(service, asked, header)


def expected_challenge(service: Service, meets: str, target: str, header: str | None) -> Challenge:
    style, error, scope = meets.rstrip("!?"), _ERRORS.get(meets[-1]), _SCOPES[target]
    match style:
        case "own":
            return Challenge.of("Bearer", realm=REALM, service="docker-image-proxy", scope=scope, error=error)
        case "re":
            return Challenge.of("Bearer", realm=REALM, service="upstream.test", scope=scope, error=error)
        case "basic":
            return Challenge.of("Basic", realm="docker-image-proxy")
    # Search reads the upstream's catalog, and what passes unchanged speaks of that.
    there = _SCOPES["catalog"] if target == "search" else scope
    return service.upstream.challenge(there, "insufficient_scope" if there and header else None)


def expected_rights(service: Service, asked: str, header: str | None) -> list[UpstreamCredentials]:
    rights = {
        "-": [],
        "bare": [ForwardedCredentials(None)],
        "raw": [ForwardedCredentials(header)],
        "half": [ForwardedCredentials(f"Bearer {UPSTREAM_TOKEN}")],
        "login": [SessionCredentials(ALICE)],
        "nobody": [SessionCredentials(None)],
        "mirror": [mirror_credentials(service.parts.upstream())],
    }
    return rights[asked]


@pytest.mark.parametrize(("row", "caller", "cells"), lines(), ids=lambda value: value if isinstance(value, str) else "")
def test_trust_table_holds_in_every_single_cell(row: str, caller: str, cells: list[str]) -> None:
    service = service_in(row)
    header = header_of(caller, service, "alice" if ROWS[row][3] else ANONYMOUS)
    wanted = {target: expected(service, cell, target, header) for target, cell in zip(TARGETS, cells, strict=True)}
    assert service.run(meet_all(service, header)) == wanted
    assert service.upstream.relayed == []


@pytest.mark.parametrize("row", ROWS)
def test_every_grid_stands_in_the_row_it_claims(row: str) -> None:
    service = service_in(row)
    assert service.run(service.parts.upstream_auth().row(service.parts.upstream()))[0].number == ROWS[row][0]


@pytest.mark.parametrize(
    ("row", "identity"),
    [
        ("5 anonymous", SessionCredentials(None)),
        ("5 service bearer", SessionCredentials(Credentials("alice", "right"))),
        ("5 service basic", SessionCredentials(Credentials("alice", "right"))),
        ("6 client", ForwardedCredentials(None)),
        ("6 anonymous", SessionCredentials(None)),
        ("6 service", SessionCredentials(Credentials("alice", "right"))),
    ],
)
def test_mirror_identity_is_what_the_operator_chose(row: str, identity: UpstreamCredentials) -> None:
    assert mirror_credentials(service_in(row).parts.upstream()) == identity


@pytest.mark.parametrize(("scheme", "caller"), [("none", "own"), ("bearer", "countersigned")])
def test_token_ends_with_the_account_it_names(scheme: str, caller: str) -> None:
    before = Service(stocked(scheme), accounts=accounts(ALICE, BOB))
    header = header_of(caller, before, "alice")
    before.run(before.manifest(header))
    after = Service(stocked(scheme), accounts=accounts(BOB))
    with pytest.raises(Unauthorized) as refused:
        after.run(after.manifest(header))
    assert refused.value.challenges[0].get("error") == "invalid_token"
    assert after.upstream.asked == []


def test_changed_password_leaves_the_old_one_useless() -> None:
    service = Service(stocked("basic"), accounts=accounts(Credentials("alice", "new")))
    with pytest.raises(Unauthorized):
        service.run(service.manifest(basic(ALICE)))
    assert service.upstream.asked == []


@pytest.mark.parametrize(("scheme", "caller"), [("none", "own"), ("bearer", "countersigned")])
def test_anonymous_token_is_worthless_where_accounts_count(scheme: str, caller: str) -> None:
    service = Service(stocked(scheme), accounts=accounts(ALICE))
    header = header_of(caller, service, ANONYMOUS)
    with pytest.raises(Unauthorized):
        service.run(service.manifest(header))
    assert service.upstream.asked == []


def test_own_token_reads_nothing_private_in_row_3() -> None:
    service = Service(stocked("bearer"))
    header = f"Bearer {service.own_token('alice')}"
    with pytest.raises(Unauthorized):
        service.run(service.manifest(header, PRIVATE))
    assert [fetch.credentials for fetch in service.upstream.asked] == [SessionCredentials(None)]


def test_token_of_another_secret_is_not_ours() -> None:
    stranger = Service(stocked("none"), server_secret="another secret of thirty-two bytes at least")
    service = Service(stocked("none"), accounts=accounts(ALICE))
    with pytest.raises(Unauthorized) as refused:
        service.run(service.manifest(f"Bearer {stranger.own_token('alice')}"))
    assert refused.value.challenges[0].get("error") == "invalid_token"


def test_token_of_another_mirror_with_our_secret_is_foreign() -> None:
    other = Service(stocked("none"), self_auth_service="another-mirror")
    service = Service(stocked("none"), accounts=accounts(ALICE))
    with pytest.raises(Unauthorized):
        service.run(service.manifest(f"Bearer {other.own_token('alice')}"))
    assert service.upstream.asked == []


def test_challenge_of_a_refusal_speaks_the_clients_words() -> None:
    service = Service(stocked("none"), accounts=accounts(ALICE), upstream_registry="https://registry-1.docker.io")
    with pytest.raises(Unauthorized) as refused:
        service.run(service.manifest(name=type(PRIVATE)("nginx")))
    assert refused.value.challenges[0].get("scope") == "repository:nginx:pull"


def test_token_for_library_name_opens_the_short_name() -> None:
    service = Service(stocked("none"), accounts=accounts(ALICE), upstream_registry="https://registry-1.docker.io")
    service.upstream.put_manifest("library/nginx", "1", b'{"schemaVersion":1}', "application/json")
    _, scopes = service.parts.upstreams().login_of(ScopeSet.parse(["repository:nginx:pull"]))
    header = f"Bearer {service.own_token('alice', scopes)}"
    service.run(service.manifest(header, type(PRIVATE)("nginx")))
    service.run(service.manifest(header, type(PRIVATE)("library/nginx")))


def test_token_nested_beyond_reason_is_refused_like_any() -> None:
    """Any client can send one; it is no token of ours and no reason to fall over."""
    deep = in_base64("[" * 3000).rstrip("=")
    service = Service(stocked("none"), accounts=accounts(ALICE))
    with pytest.raises(Unauthorized):
        service.run(service.manifest(f"Bearer {deep}.{deep}.x"))
