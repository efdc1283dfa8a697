import ast

from tests.architecture.sources import PACKAGES, Function, files, imported, name_of, parsed

FILE_LINES = 300
FUNCTION_LINES = 40


def test_a_file_has_300_lines_at_most() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(*PACKAGES, "tests")}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}


def test_a_function_has_40_lines_at_most() -> None:
    lengths = {
        f"{name_of(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in files(*PACKAGES, "tests")
        for node in ast.walk(parsed(path))
        if isinstance(node, Function)
    }
    assert len(lengths) > 500
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


def test_every_module_opens_with_one_sentence() -> None:
    silent = [name_of(path) for path in files(*PACKAGES) if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_no_test_replaces_parts_by_mocks() -> None:
    found = [name_of(path) for path in files("tests") for name in imported(parsed(path)) if name.startswith("unittest")]
    assert found == []
