from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from application.blobs.shared_download import SharedDownloads
from domain.access import Credentials
from domain.authorization import encode_basic
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container
from entrypoints.wiring.storage import Storage, open_storage
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.parts import container_of, memory_storage, settings_of
from tests.fakes.upstream import FakeUpstream

ACCOUNTS = encode_basic(Credentials("alice", "sesame"))
SERVICE = {"upstream_username": "mirror", "upstream_password": "sesame"}
EACH = pytest.mark.parametrize(
    "values",
    [
        {},
        {"skip_auth_proxy": True},
        {"accounts": ACCOUNTS},
        {"upstream_identity": "anonymous"},
        SERVICE,
        {"accounts": ACCOUNTS, "upstream_realms": "auth.test:8443", "https_proxy": "http://proxy.test:3128", **SERVICE},
    ],
    ids=lambda values: "+".join(values) or "defaults",
)
# container_of passes None as the clients, because the fakes need none.
WITHOUT_A_VALUE = {"clients"}
ONLY_ON_REPLICAS = {"outbox", "shared_content", "manage_shared_content"}


def production(settings: Settings, storage: Storage | None = None) -> Container:
    """The container with the production providers, without connections and files."""
    counting = CountingEventSink(SharedCounters(1), 0)
    return Container(settings=settings, clients=object(), storage=storage or memory_storage(), counting=counting)


@EACH
def test_every_provider_builds_with_fakes(values: Mapping[str, object]) -> None:
    container = container_of(settings_of(**values), FakeUpstream())
    built = {name: provider() for name, provider in container.providers.items()}
    assert len(built) > 20
    assert {name for name, part in built.items() if part is None} <= WITHOUT_A_VALUE | ONLY_ON_REPLICAS


@EACH
def test_every_provider_builds_as_in_production(values: Mapping[str, object]) -> None:
    container = production(settings_of(**values))
    built = {name: provider() for name, provider in container.providers.items()}
    assert {name for name, part in built.items() if part is None} == ONLY_ON_REPLICAS


async def test_every_provider_builds_on_a_replica(tmp_path: Path) -> None:
    """With the production adapters of the shared tier, which send nothing before their first use."""
    settings = settings_of(
        cache_dir=tmp_path / "cache", shared_store=(tmp_path / "store").as_uri(), shared_index="redis://index.test"
    )
    async with open_storage(settings, StoppedClock(), RecordingEventSink()) as storage:
        container = production(settings, storage)
        built = {name: provider() for name, provider in container.providers.items()}
        assert [name for name, part in built.items() if part is None] == []
        assert isinstance(built["replicas"], SharedDownloads)
        assert [service.address for service in built["shared_services"]] == [
            settings.shared_store,
            "index.test:6379",
        ]


def test_every_part_is_built_only_once() -> None:
    container = production(settings_of())
    first, second = ({name: provider() for name, provider in container.providers.items()} for _ in range(2))
    assert [name for name in first if first[name] is not second[name]] == []


def test_two_containers_share_no_part() -> None:
    settings = settings_of()
    first, second = (production(settings) for _ in range(2))
    assert first.upstream_auth() is not second.upstream_auth()
    assert first.registry() is not second.registry()
