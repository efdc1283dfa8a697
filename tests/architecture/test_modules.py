import ast

from tests.architecture.sources import PACKAGES, files, imported, name_of, parsed


def test_every_module_has_a_docstring() -> None:
    silent = [name_of(path) for path in files(*PACKAGES) if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_no_test_uses_mocks() -> None:
    found = [
        name_of(path)
        for path in files("benchmarks", "tests")
        for name in imported(parsed(path))
        if name.startswith("unittest")
    ]
    assert found == []
