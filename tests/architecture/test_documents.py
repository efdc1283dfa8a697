"""The links, settings, commands, metrics, errors and tests that the documents name exist."""

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from docs import generate
from domain.errors import RegistryError
from entrypoints.cli import command_parser
from entrypoints.http.responses.error_responses import SANIC_CODES, status_of
from entrypoints.settings.sources import KNOWN_NAMES
from entrypoints.version import NAME, VERSION
from tests.architecture.sources import PACKAGES, ROOT, files, parsed

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NO_SETTINGS = {
    "AWS_ACCESS_KEY_ID", "AWS_ALLOW_HTTP", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SECRET_ACCESS_KEY",
    "AWS_UNSIGNED_PAYLOAD", "BARE_ROOT_CACHE", "BARE_SUITE", "MSG_TRUNC", "SOURCE_DATE_EPOCH", "SSL_CERT_FILE",
    "XDG_DATA_HOME",
}  # fmt: skip
"""Names in the documents that look like settings and are not."""


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def everywhere(pattern: str) -> set[str]:
    """The matches of the pattern in all documents."""
    return {found for path in DOCUMENTS for found in re.findall(pattern, path.read_text(encoding="utf-8"))}


def test_the_project_has_the_name_and_the_version_of_the_service() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    assert (project["project"]["name"], project["project"]["dynamic"]) == (NAME, ["version"])
    version = project["tool"]["hatch"]["version"]
    assert re.findall(version["pattern"], text_of(version["path"]), re.MULTILINE) == [VERSION]


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    entries = re.findall(r"^## \[?v?(\d+\.\d+\.\d+[^\]\s]*)\]?", text_of("CHANGELOG.md"), re.MULTILINE)
    assert entries[:1] == [VERSION]


# --- links and files ---


def headings(path: Path) -> set[str]:
    """The anchors of a document, made as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = path.parent / file if file else path
        if not place.exists() or (anchor and anchor not in headings(place)):
            yield target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_named_source_files_exist() -> None:
    named = everywhere(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`")
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_named_folders_and_scripts_exist() -> None:
    named = everywhere(rf"`((?:{'|'.join([*PACKAGES, 'tests', 'docs', 'scripts'])})(?:/[a-z0-9_-]+)+)`")
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("package", ["application", "entrypoints"])
def test_the_architecture_lists_the_folders(package: str) -> None:
    text = text_of("docs/explanation/architecture.md")
    [section] = re.findall(rf"^### Folders of `{package}`\n(.*?)^#", text, re.MULTILINE | re.DOTALL)
    listed = {
        name for cell in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    folders = {path.name for path in (ROOT / package).iterdir() if any(path.glob("*.py"))}
    files_there = {path.stem for path in (ROOT / package).glob("*.py")}
    assert (sorted(listed - folders - files_there), sorted(folders - listed)) == ([], [])


# --- tests ---


def functions(*folders: str) -> set[str]:
    nodes = chain.from_iterable(ast.walk(parsed(path)) for path in files(*folders))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_named_tests_exist() -> None:
    named = everywhere(r"`(test_[A-Za-z0-9_]+)`")
    assert len(named) > 100
    assert sorted(named - functions("tests")) == []


def test_the_document_of_quirks_names_every_test_of_a_quirk() -> None:
    [folder] = (ROOT / "tests").rglob("quirks")
    tests = {name for name in functions(str(folder.relative_to(ROOT))) if name.startswith("test_")}
    assert tests
    assert sorted(tests - set(re.findall(r"`(\w+)`", text_of("docs/reference/registry-quirks.md")))) == []


# --- settings, errors, metrics, endpoints and commands ---


@pytest.mark.parametrize("part", generate.PARTS)
def test_generated_parts_are_up_to_date(part: str) -> None:
    page, _ = generate.PARTS[part]
    assert text_of(page) == generate.written(part), "run: scripts/docs --write"


def codes() -> set[str]:
    return {one.code for one in refusals()} | {code for _, code in SANIC_CODES}


def refusals(base: type[RegistryError] = RegistryError) -> Iterator[type[RegistryError]]:
    yield base
    for kind in base.__subclasses__():
        yield from refusals(kind)


def test_named_settings_exist() -> None:
    settings = set(map(str.upper, KNOWN_NAMES))
    named = everywhere(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`")
    assert len(named) > 40
    assert sorted(named - settings - codes() - NO_SETTINGS) == []


def test_the_page_of_settings_has_every_setting() -> None:
    listed = set(re.findall(r"`([A-Z_]+)`", text_of("docs/reference/settings.md")))
    parts_of_the_file = {"UPSTREAMS", "DEFAULT_UPSTREAM", "RULES"}
    settings = set(map(str.upper, KNOWN_NAMES)) - parts_of_the_file
    assert sorted(settings - listed) == []


def test_the_page_of_errors_has_every_status_and_code() -> None:
    rows = re.findall(r"^\| (\d{3}) \| ((?:`[A-Z_]+`,? ?)+)\|", text_of("docs/reference/errors.md"), re.MULTILINE)
    listed = {(int(status), code) for status, codes in rows for code in re.findall(r"[A-Z_]+", codes)}
    known = {(status_of(kind), kind.code) for kind in refusals()}
    known |= {(kind.status_code, code) for kind, code in SANIC_CODES}
    assert sorted(known ^ listed) == []


def test_messages_in_examples_exist_in_the_source() -> None:
    shown = everywhere(r'"message": "([^"]+)"')
    source = "\n".join(path.read_text(encoding="utf-8") for path in files(*PACKAGES))
    assert sorted(message for message in shown if message not in source) == []


def test_named_metrics_exist() -> None:
    assert sorted(everywhere(r"\b(docker_image_proxy_\w+)") - set(re.findall(r"docker_\w+", generate.metrics()))) == []


def test_the_page_of_endpoints_has_every_fixed_path() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in files("entrypoints/http"))
    paths = set(re.findall(r'add_route\(\w+, "([^"<]+)"', source))
    listed = re.findall(r"`(/[^`]+)`", text_of("docs/reference/endpoints.md"))
    assert len(paths) > 5
    assert sorted(paths - set(listed)) == []


def test_the_glossary_defines_each_term_once() -> None:
    terms = re.findall(r"^\| (.+?) \|", text_of("docs/reference/glossary.md"), re.MULTILINE)[1:]
    assert len(terms) > 20
    assert sorted(term for term in terms if terms.count(term) > 1) == []


def test_named_commands_exist() -> None:
    [group] = [one for one in command_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    named = everywhere(rf"(?:`|bin/){NAME} ([a-z][a-z-]+)")
    assert len(named) > 5
    assert sorted(named - set(group.choices)) == []


# --- translations ---


@pytest.mark.parametrize(
    "path", ["README.zh-CN.md", *(f"docs/zh/{path.name}" for path in sorted((ROOT / "docs" / "zh").glob("*.md")))]
)
def test_a_translation_names_the_document_and_version_that_it_follows(path: str) -> None:
    [followed] = re.findall(r"`(\S+\.md)` \d+\.\d+\.\d+", text_of(path))
    assert (ROOT / followed).is_file()
