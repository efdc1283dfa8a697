"""`warm`: the login with which it pulls, and that access rules do not apply to it."""

import pytest
from dependency_injector import providers
from rich.progress import Progress

from application.upkeep.warm import Image
from domain.access import Credentials
from domain.access_rules import AccessRules, Effect
from domain.names import Reference, RepositoryName
from entrypoints.commands.warm_command import _pull
from entrypoints.settings import UpstreamSettings
from entrypoints.wiring.container import Container, close_container
from tests.entrypoints.service import basic
from tests.fakes.parts import container_of, settings_of
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstreams import FakeUpstreams

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
async def test_access_rules_do_not_apply_to_warm(
    scheme: str, values: dict[str, object], login: Credentials | None
) -> None:
    upstream = FakeUpstream(scheme, users={"alice": "right"}, public={str(NAME)})
    upstream.put_manifest(str(NAME), "1", b'{"schemaVersion":2,"layers":[]}')
    parts = container_of(settings_of(**values), upstream)
    parts.access_rules.override(providers.Object(AccessRules((), Effect.DENY)))
    await _warm(parts, login)
    assert [fetch.resource.scope.name for fetch in upstream.asked] == [str(NAME)]


async def test_an_image_of_a_registry_with_its_own_host_is_requested_from_that_registry() -> None:
    """The login for it must not be sent to another registry."""
    urls = ("https://harbor.test", "https://ghcr.test")
    fakes = {url: FakeUpstream("bearer", url, {"alice": "right"}) for url in urls}
    fakes[urls[1]].put_manifest(str(NAME), "1", b'{"schemaVersion":2,"layers":[]}')
    upstreams = (UpstreamSettings(url=urls[0]), UpstreamSettings(url=urls[1], hosts=frozenset({"gh.mirror.test"})))
    parts = container_of(settings_of(upstreams=upstreams), FakeUpstreams(fakes))
    await _warm(parts, ALICE, RepositoryName(f"ghcr.test/{NAME}"))
    assert (fakes[urls[0]].relayed, fakes[urls[0]].asked) == ([], [])
    assert [request.credentials for request in fakes[urls[1]].relayed] == [ALICE]


async def _warm(parts: Container, login: Credentials | None, name: RepositoryName = NAME) -> None:
    try:
        await _pull(parts, Image(name, Reference.parse("1")), login, Progress(disable=True))
    finally:
        await close_container(parts)
