import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT, files, module_of, parsed

OURS = [module_of(path) for path in files(*PACKAGES)]


def imports_of_libraries() -> str:
    """Every import of a library, so that its effects are not attributed to this project."""
    nodes = [node for path in files(*PACKAGES) for node in ast.walk(parsed(path))]
    found = {ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}
    return "\n".join(sorted(one for one in found if re.split(r"[ .]", one)[1] not in PACKAGES))


def effects(folder: Path, libraries: str, path: Path, *modules: str) -> list[str]:
    """The side effects of importing these modules in a new interpreter."""
    allowed = folder / "libraries.txt"
    allowed.write_text(libraries, encoding="utf-8")
    script = Path(__file__).with_name("quiet_imports.py")
    command = [sys.executable, "-B", script, allowed, *modules]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(path)}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.slow
def test_importing_a_module_has_no_effects(tmp_path: Path) -> None:
    assert len(OURS) > 60
    assert effects(tmp_path, imports_of_libraries(), ROOT, *OURS) == []


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("import socket; socket.socket()", "socket.__new__"),
        ("import threading; threading.Thread(target=print).start()", "thread"),
        ("import asyncio; loop = asyncio.new_event_loop()", "alive"),
        ("open('/dev/null')", "open"),
        ("open(__file__, 'a').close()", "open"),
        ("import os; os.environ['A'] = 'b'", "environment"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
    ],
    ids=["socket", "thread", "loop", "read", "write", "environment", "process"],
)
def test_an_effect_of_an_import_is_found(statement: str, event: str, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(f"{statement}\n", encoding="utf-8")
    assert any(line.startswith(event) for line in effects(tmp_path, "", tmp_path, "loud"))


def test_a_module_without_effects_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "quiet.py").write_text("import json\n", encoding="utf-8")
    assert effects(tmp_path, "", tmp_path, "quiet") == []
