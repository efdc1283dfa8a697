"""`warm` is the operator's: whom it calls as, and what does not bind it."""

import asyncio

import pytest
from dependency_injector import providers
from rich.progress import Progress

from application.warm_cache import Image
from domain.access import Credentials
from domain.access_rules import AccessRules, Effect
from domain.names import Reference, RepositoryName
from entrypoints.container import Container, close_parts
from entrypoints.warm_command import _pull
from tests.entrypoints.service import basic
from tests.fakes.parts import container_of, settings_of
from tests.fakes.upstream import FakeUpstream

NAME = RepositoryName("team/app")
ALICE = Credentials("alice", "right")
ACCOUNT = basic("alice", "right").removeprefix("Basic ")


@pytest.mark.parametrize("login", [None, ALICE])
@pytest.mark.parametrize(
    ("scheme", "values"),
    [
        ("none", {}),
        ("none", {"accounts": ACCOUNT}),
        ("bearer", {}),
        ("bearer", {"upstream_identity": "anonymous"}),
        ("bearer", {"accounts": ACCOUNT}),
    ],
)
def test_an_image_that_is_forbidden_to_everybody_is_warmed(
    scheme: str, values: dict[str, object], login: Credentials | None
) -> None:
    upstream = FakeUpstream(scheme, users={"alice": "right"}, public={str(NAME)})
    upstream.put_manifest(str(NAME), "1", b'{"schemaVersion":2,"layers":[]}')
    parts = container_of(settings_of(**values), upstream)
    parts.access_rules.override(providers.Object(AccessRules((), Effect.DENY)))
    asyncio.run(_warm(parts, login))
    assert [fetch.resource.scope.name for fetch in upstream.asked] == [str(NAME)]


async def _warm(parts: Container, login: Credentials | None) -> None:
    try:
        await _pull(parts, Image(NAME, Reference.parse("1")), login, Progress(disable=True))
    finally:
        await close_parts(parts)
