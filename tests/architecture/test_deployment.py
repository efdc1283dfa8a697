"""The examples of how to run the service have it restarted when a process of it was killed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_unit_restarts_a_service_that_was_killed() -> None:
    unit = (ROOT / "deploy" / "docker-image-proxy.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, flags=re.MULTILINE))
    # Each covers a status that is not 0 and an end by a signal (systemd.service(5), Restart=).
    assert settings["Restart"] in {"on-failure", "always"}
    assert "1" not in settings.get("RestartPreventExitStatus", "").split()
    assert "1" not in settings.get("SuccessExitStatus", "").split()
    # Else the end of one worker would stop the unit.
    assert settings["OOMPolicy"] == "continue"


@pytest.mark.parametrize("document", ["docs/guides/deployment.md", "deploy/Dockerfile"])
def test_the_documents_restart_a_container(document: str) -> None:
    runs = [line for line in (ROOT / document).read_text().splitlines() if "docker run" in line]
    assert runs
    assert all("docker run --restart unless-stopped" in line for line in runs)
