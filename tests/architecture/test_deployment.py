"""In the deployment examples the service is restarted when one of its processes was killed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_systemd_unit_restarts_a_killed_service() -> None:
    unit = (ROOT / "deploy" / "docker-image-proxy.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, flags=re.MULTILINE))
    # Both values restart after a status other than 0 and after a signal (systemd.service(5), Restart=).
    assert settings["Restart"] in {"on-failure", "always"}
    assert "1" not in settings.get("RestartPreventExitStatus", "").split()
    assert "1" not in settings.get("SuccessExitStatus", "").split()
    # Otherwise the OOM kill of one worker would stop the unit.
    assert settings["OOMPolicy"] == "continue"


@pytest.mark.parametrize("document", ["docs/guides/deployment.md", "deploy/Dockerfile"])
def test_the_documented_docker_commands_restart_the_container(document: str) -> None:
    runs = [line for line in (ROOT / document).read_text().splitlines() if "docker run" in line]
    assert runs
    assert all("docker run --restart unless-stopped" in line for line in runs)
