"""The servers that the tests in this folder share."""

from collections.abc import Iterator

import pytest

from tests.e2e.support.valkey import Valkey, valkey


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A running Valkey. A test that needs it empty flushes it, and resumes it if it has paused it."""
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running
