"""Fixtures of the tests of the page."""

import pytest

from entrypoints.http.page import event_streams, renderings


@pytest.fixture
def quick_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event streams look for changes often, so that a test does not wait for seconds."""
    for module in (event_streams, renderings):
        monkeypatch.setattr(module, "RENDER_SECONDS", 0.05)
