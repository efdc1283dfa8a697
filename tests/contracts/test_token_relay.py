"""The contract of TokenRelay: for the fake, and for the adapter with a token server that follows the specification."""

import pytest

from application.ports.upstream import ForwardedCredentials, Resource, TokenRequest, UpstreamRequest
from domain.access import Credentials, ScopeSet
from domain.errors import CredentialsRejected, UpstreamChallenged
from domain.names import Reference, RepositoryName
from domain.tokens import IssuedToken
from tests.adapters.upstream.line import in_loop
from tests.contracts.upstreams import ALICE, MANIFEST, PLAYERS, PRIVATE, PUBLIC, Player, playing

pytestmark = pytest.mark.parametrize("player", PLAYERS)
SCOPES = ScopeSet.parse(["repository:public/app:pull", "repository:private/app:pull"])


async def fetched(asked: Player, **request: object) -> IssuedToken:
    return await asked.relay.fetch(TokenRequest(asked.upstream, asked.challenge, SCOPES, **request))


async def read(asked: Player, token: IssuedToken, name: RepositoryName) -> bytes:
    resource = Resource.manifest(asked.source(name), Reference.parse("1"))
    async with asked.registry.open(UpstreamRequest(resource, ForwardedCredentials(f"Bearer {token.text}"))) as answer:
        return await answer.read(1000)


@in_loop
async def test_token_of_a_user_gives_access_to_private_content(player: str) -> None:
    async with playing(player, "bearer") as asked:
        token = await fetched(asked, credentials=ALICE)
        assert await read(asked, token, PRIVATE) == MANIFEST


@in_loop
async def test_anonymous_token_gives_access_to_public_content(player: str) -> None:
    async with playing(player, "bearer") as asked:
        token = await fetched(asked)
        assert await read(asked, token, PUBLIC) == MANIFEST
        with pytest.raises(UpstreamChallenged):
            await read(asked, token, PRIVATE)


@in_loop
async def test_token_has_its_lifetime_and_scopes(player: str) -> None:
    async with playing(player, "bearer") as asked:
        token = await fetched(asked, credentials=ALICE)
        assert (token.expires_in, token.issued_at, token.scopes) == (300, 1_800_000_000, SCOPES)


@pytest.mark.parametrize(
    "credentials", [Credentials("alice", "wrong"), Credentials("nobody", ""), Credentials("", "x")]
)
@in_loop
async def test_token_server_refuses_wrong_credentials(player: str, credentials: Credentials) -> None:
    async with playing(player, "bearer") as asked:
        with pytest.raises(CredentialsRejected):
            await fetched(asked, credentials=credentials)


@in_loop
async def test_refresh_token_is_issued_only_on_request(player: str) -> None:
    async with playing(player, "bearer") as asked:
        assert (await fetched(asked, credentials=ALICE)).refresh_token is None
        assert (await fetched(asked, credentials=ALICE, offline=True)).refresh_token == "refresh"


@in_loop
async def test_refresh_token_is_accepted_instead_of_credentials(player: str) -> None:
    async with playing(player, "bearer") as asked:
        assert (await fetched(asked, refresh_token="refresh")).text
        with pytest.raises(CredentialsRejected):
            await fetched(asked, refresh_token="forged")
