import ast
import re
import subprocess
import sys

import pytest

from tests.architecture.sources import PACKAGES, ROOT, files, imported, name_of, parsed

# Modules that wait, read a clock, use random numbers or access the machine.
NOT_FOR_RULES = frozenset(
    {
        *("asyncio", "concurrent", "multiprocessing", "threading", "queue", "sched", "signal", "subprocess"),
        *("time", "datetime", "calendar", "random", "secrets", "uuid"),
        *("os", "io", "pathlib", "shutil", "tempfile", "glob", "sqlite3", "mmap", "fcntl"),
        *("socket", "ssl", "select", "selectors", "http", "urllib", "logging", "sys", "importlib"),
    }
)
NOT_FOR_USE_CASES = frozenset(
    {
        *("os", "io", "pathlib", "shutil", "tempfile", "sqlite3", "mmap", "fcntl", "subprocess", "multiprocessing"),
        *("socket", "ssl", "select", "http", "time", "datetime", "random", "secrets", "importlib"),
    }
)
ALLOWED = {
    "domain": frozenset(sys.stdlib_module_names) - NOT_FOR_RULES | {"domain"},
    "application": frozenset(sys.stdlib_module_names) - NOT_FOR_USE_CASES | {"application", "domain"},
}
WITHOUT_INPUT_OR_OUTPUT = {
    "domain/documents.py imports msgspec",  # reads JSON (domain/documents.py says why)
    "domain/value.py imports msgspec",  # makes classes of values (domain/value.py says why)
    "domain/http_fields.py imports urllib.parse",  # encodes text
    "domain/redis_address.py imports urllib.parse",  # decodes text
}


@pytest.mark.parametrize("package", ALLOWED)
def test_domain_and_application_import_only_allowed_modules(package: str) -> None:
    found = {
        f"{name_of(path)} imports {module}"
        for path in files(package)
        for module in imported(parsed(path))
        if module.partition(".")[0] not in ALLOWED[package]
    }
    assert found - WITHOUT_INPUT_OR_OUTPUT == set()


def test_no_module_is_imported_by_a_name_at_run_time() -> None:
    found = {
        f"{name_of(path)}:{node.lineno}"
        for path in files(*PACKAGES)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"__import__", "import_module"}
    }
    assert found == set()


def test_the_domain_has_no_asynchronous_code() -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = {
        f"{name_of(path)}:{node.lineno}"
        for path in files("domain")
        for node in ast.walk(parsed(path))
        if isinstance(node, waiting) or (isinstance(node, ast.comprehension) and node.is_async)
    }
    assert found == set()


def test_domain_and_application_open_no_files_and_print_nothing() -> None:
    found = {
        f"{name_of(path)}:{node.lineno}"
        for path in files("domain", "application")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "print", "input", "eval", "exec"}
    }
    assert found == set()


def test_the_contracts_of_import_linter_are_kept() -> None:
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


REGISTRY = re.compile(
    r"docker\.(io|com|elastic)|ghcr|quay|\bgcr\b|k8s|pkg\.dev|ecr\b|amazonaws|azurecr|mcr\.|nvcr|gitlab|harbor|redhat|codeberg",
    re.IGNORECASE,
)


@pytest.mark.parametrize("package", ["application", "adapters"])
def test_no_use_case_and_no_adapter_contains_the_name_of_a_registry(package: str) -> None:
    """Facts about a registry are data in the domain and in the settings. Comments may name registries."""
    found = {
        f"{name_of(path)}: {text!r}"
        for path in files(package)
        for text in _texts(parsed(path))
        if REGISTRY.search(text)
    }
    assert found == set()


def _texts(tree: ast.Module) -> list[str]:
    """The string literals, except docstrings and other strings that are statements."""
    alone = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in alone]
    return [node.value for node in texts if isinstance(node.value, str)]


def test_the_name_of_a_registry_in_the_code_is_found() -> None:
    module = ast.parse('"""Seen at ghcr.io."""\nHOST = "https://ghcr.io"\ndef f(a=("Harbor",)): "quay.io"\n')
    assert [text for text in _texts(module) if REGISTRY.search(text)] == ["https://ghcr.io", "Harbor"]
