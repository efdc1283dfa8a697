import ast
import re
import tomllib
from pathlib import Path

import pytest

from entrypoints.version import NAME, VERSION
from tests.architecture.sources import ROOT, files, parsed


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_the_project_bears_the_services_version() -> None:
    assert (project()["name"], project()["version"]) == (NAME, VERSION)


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[?v?(\d+\.\d+\.\d+[^\]\s]*)\]?", text, re.MULTILINE)
    assert entries[:1] == [VERSION]


def test_the_architecture_names_no_file_that_is_gone() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    existing = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert sorted(set(re.findall(r"[A-Za-z0-9_]+\.py\b", text)) - existing) == []


def functions_of(path: Path) -> set[str]:
    """The functions of a file; none where there is no such file."""
    if not path.is_file():
        return set()
    return {node.name for node in parsed(path).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("document", ["seed.md", "upstreams.md", "faults.md"])
def test_a_document_names_only_tests_that_exist(document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    named = re.findall(r"`([a-z0-9_/]+\.py)::([A-Za-z0-9_]+)`", text)
    assert len(named) == text.count(".py::") > 0
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / "tests" / path)] == []


def test_every_test_of_a_quirk_is_named_in_the_document() -> None:
    text = (ROOT / "docs" / "upstreams.md").read_text(encoding="utf-8")
    found = {
        name for path in files("tests/entrypoints/quirks") for name in functions_of(path) if name.startswith("test_")
    }
    assert sorted(name for name in found if f"::{name}`" not in text) == []
