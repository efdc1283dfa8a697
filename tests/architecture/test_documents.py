import re
import tomllib
from collections import Counter

from entrypoints.version import NAME, VERSION
from tests.architecture.sources import PACKAGES, ROOT, files, name_of


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_the_project_bears_the_services_version() -> None:
    assert (project()["name"], project()["version"]) == (NAME, VERSION)


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[?v?(\d+\.\d+\.\d+[^\]\s]*)\]?", text, re.MULTILINE)
    assert entries[:1] == [VERSION]


def test_the_architecture_names_every_source_file() -> None:
    """A file is named by its name alone or with its folder; one name for two files has to stand there twice."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = Counter(re.findall(r"[A-Za-z0-9_]+\.py\b", text))
    paths = [path for path in files(*PACKAGES) if path.name != "__init__.py"]
    needed = Counter(path.name for path in paths)
    assert [name_of(path) for path in paths if named[path.name] < needed[path.name]] == []


def test_the_architecture_names_no_file_that_is_gone() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    existing = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert sorted(set(re.findall(r"[A-Za-z0-9_]+\.py\b", text)) - existing) == []
