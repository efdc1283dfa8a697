"""The caller as which the mirror pulls for its operator, in every row of the trust table."""

import pytest
from dependency_injector import providers

from application.manifests.manifest_query import ManifestQuery
from domain.access import Credentials
from domain.access_rules import AccessRules, Effect
from domain.errors import CredentialsRejected, Denied, Unauthorized
from domain.names import Reference, RepositoryName
from domain.upstream_table import NO_HINT
from tests.application.access.test_authorize import service_in
from tests.application.support.service import ALICE, BOB, NAME, PRIVATE, Service
from tests.application.support.trust_table import ROWS

_PASSES_HEADERS = {"1 bearer", "1 basic", "4", "8"}
"""The upstream gives even public content only to callers with an Authorization header of their own."""
_IS_PUBLIC = {"1 open", "2", "6 client"}
"""The upstream gives all content to everybody."""
_HAS_LOGIN = {"5 service bearer", "5 service basic", "6 service"}
"""The mirror has a login at the upstream."""
_TAKES_LOGIN = {"1 basic", "3", "4", "7", "8"}
"""The upstream gets the login of a caller who has one. In row 1 with a bearer upstream, it would be a Basic header,
which the upstream refuses.
"""


def _pull(service: Service, name: RepositoryName, login: Credentials | None = None) -> None:
    """Pull a manifest of the repository as the mirror's caller. No access rule allows it."""
    service.parts.access_rules.override(providers.Object(AccessRules((), Effect.DENY)))

    async def act() -> None:
        caller = await service.parts.mirror_caller()(name, NO_HINT, login)
        assert (await service.parts.pull_manifest()(caller, ManifestQuery(name, Reference.parse("1")))).content

    service.run(act())


@pytest.mark.parametrize("row", sorted(ROWS.keys() - _PASSES_HEADERS))
def test_the_mirror_pulls_public_images_without_a_login(row: str) -> None:
    _pull(service_in(row), NAME)


@pytest.mark.parametrize("row", sorted(ROWS.keys() - _PASSES_HEADERS))
def test_a_pull_may_take_longer_than_the_tokens_of_clients_are_valid(row: str) -> None:
    service = service_in(row)

    async def act() -> None:
        caller = await service.parts.mirror_caller()(NAME, NO_HINT)
        service.clock.advance(12 * 3600)
        assert (await service.parts.pull_manifest()(caller, ManifestQuery(NAME, Reference.parse("1")))).content

    service.run(act())


@pytest.mark.parametrize("row", sorted(_PASSES_HEADERS))
def test_a_row_that_passes_headers_gives_the_mirror_nothing(row: str) -> None:
    with pytest.raises(Unauthorized):
        _pull(service_in(row), NAME)


@pytest.mark.parametrize("row", sorted(ROWS.keys() - _PASSES_HEADERS))
def test_the_mirror_pulls_private_images_only_with_its_own_login(row: str) -> None:
    if row in _IS_PUBLIC | _HAS_LOGIN:
        return _pull(service_in(row), PRIVATE)
    with pytest.raises((Unauthorized, Denied)):
        _pull(service_in(row), PRIVATE)
    return None


@pytest.mark.parametrize("row", sorted(_TAKES_LOGIN))
def test_the_upstream_gets_a_given_login(row: str) -> None:
    _pull(service_in(row), PRIVATE, ALICE)


def test_a_wrong_login_is_refused() -> None:
    with pytest.raises(CredentialsRejected):
        _pull(service_in("3"), PRIVATE, BOB)
