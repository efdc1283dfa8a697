"""The systemd unit restricts the service."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "docker-image-proxy.service"
EXPOSURE = 1.5
"""systemd-analyze gives about 10 to a service without restrictions. Most of what is left is the use of the network."""


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return program


def test_the_exposure_of_the_service_is_low(analyze: str) -> None:
    argv = [analyze, "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip(f"systemd-analyze cannot work here: {(done.stderr or done.stdout).strip()}")
    assert float(found[1]) <= EXPOSURE, done.stdout


def test_systemd_knows_every_line_of_the_unit(analyze: str, tmp_path: Path) -> None:
    program = tmp_path / "docker-image-proxy"
    program.symlink_to("/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/docker-image-proxy", str(program)))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60)
    about = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert about == []
