"""A reload during the start does not end the service."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def held(*arguments: str) -> str:
    """Whether SIGHUP is blocked when the command starts, and the modules that are imported by then."""
    script = (
        "import signal, sys, types\n"
        "import entrypoints.start as start\n"
        "before = sorted({name.partition('.')[0] for name in sys.modules} & {'platformdirs', 'sanic', 'argparse'})\n"
        "fake = types.ModuleType('entrypoints.cli')\n"
        "fake.main = lambda: print(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ()), before) or 3\n"
        "sys.modules['entrypoints.cli'] = fake\n"
        "sys.exit(start.main())\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", script, *arguments), check=False, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 3, done.stderr
    return done.stdout.strip()


def test_sighup_is_blocked_before_the_large_imports() -> None:
    assert held("serve") == "True []"


@pytest.mark.parametrize("command", ["warm", "check-config", "cache"])
def test_other_commands_end_with_their_terminal(command: str) -> None:
    assert held(command) == "False []"


def test_the_console_script_calls_start() -> None:
    assert 'docker-image-proxy = "docker_image_proxy.__main__:main"' in (ROOT / "pyproject.toml").read_text()
    assert "from entrypoints.start import main" in (ROOT / "docker_image_proxy" / "__main__.py").read_text()
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "importing it holds nothing"
