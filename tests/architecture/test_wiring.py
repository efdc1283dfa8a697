"""mypy checks the container's providers.

dependency-injector takes any arguments for a provider, so mypy accepts `Singleton(C, clock=events)`. These tests write
each provider as the call that it makes (`part: Port = C(clock=events)`) and let mypy check those calls: keywords that
do not exist, missing ones, wrong types, and results that do not implement the port.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typing_extensions import override

from tests.architecture.sources import ROOT

CONTAINER = ROOT / "entrypoints/wiring/container.py"
CALLS = {"providers.Singleton", "providers.Callable", "providers.Factory"}
"""Providers that call their first argument with all others."""

SWAPPED = """
from typing import Protocol
from dependency_injector import containers, providers
class Clock(Protocol):
    def now(self) -> int: ...
class Log(Protocol):
    def write(self, text: str) -> None: ...
class SystemClock:
    def now(self) -> int: return 0
class Console:
    def write(self, text: str) -> None: ...
class Settings:
    lifetime: int = 60
class Service:
    def __init__(self, clock: Clock, log: Log, lifetime: int) -> None: ...
class Container(containers.DeclarativeContainer):
    settings: providers.Dependency[Settings] = providers.Dependency()
    clock: providers.Provider[Clock] = providers.Singleton(SystemClock)
    log: providers.Provider[Log] = providers.Singleton(Console)
    right: providers.Provider[Service] = providers.Singleton(
        Service, clock=clock, log=log, lifetime=settings.provided.lifetime
    )
    swapped: providers.Provider[Service] = providers.Singleton(
        Service, clock=log, log=clock, lifetime=settings.provided.lifetime
    )
    nested: providers.Provider[Service] = providers.Singleton(
        Service, clock=providers.Singleton(Console), log=log, lifetime=1
    )
    misspelt: providers.Provider[Service] = providers.Singleton(Service, clock=clock, logs=log, lifetime=1)
    missing: providers.Provider[Service] = providers.Singleton(Service, clock=clock, log=log)
    setting: providers.Provider[Service] = providers.Singleton(
        Service, clock=clock, log=log, lifetime=settings.provided.liftime
    )
    port: providers.Provider[Clock] = providers.Singleton(Console)
"""


class _PlainCalls(ast.NodeTransformer):
    """Replaces each provider by the expression that it evaluates."""

    @override
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        kind = ast.unparse(node.func)
        if kind in CALLS:
            return ast.Call(func=node.args[0], args=node.args[1:], keywords=node.keywords)
        if kind == "providers.List":
            return ast.List(elts=node.args, ctx=ast.Load())
        if kind.startswith("providers."):
            raise NotImplementedError(f"say here what {kind} stands for")
        return node

    @override
    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        return node.value if node.attr == "provided" else node


def plain_calls(source: str) -> str:
    """The module up to its container, and the container as a function: a dependency is a parameter, every other
    provider is one assignment, on one line.
    """
    module = ast.parse(source)
    container = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Container")
    parameters, assignments = [], []
    for node in _providers(container):
        assert isinstance(node.annotation, ast.Subscript)
        name, given = ast.unparse(node.target), ast.unparse(node.annotation.slice)
        if ast.unparse(node.value).startswith("providers.Dependency("):
            parameters.append(f"{name}: {given}")
        else:
            assignments.append(f"    {name}: {given} = {ast.unparse(_PlainCalls().visit(node.value))}")
    before = [ast.unparse(node) for node in module.body[: module.body.index(container)]]
    return "\n".join([*before, f"def build({', '.join(parameters)}) -> None:", *assignments, ""])


def _providers(container: ast.ClassDef) -> list[ast.AnnAssign]:
    return [node for node in container.body if isinstance(node, ast.AnnAssign)]


def type_errors(source: str, path: Path) -> dict[str, str]:
    """The first mypy error of each provider, by the name of the provider."""
    path.write_text(plain_calls(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(path)],
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, str] = {}
    for error in done.stdout.splitlines():
        _, number, text = error.split(":", 2)
        found.setdefault(lines[int(number) - 1].split(":")[0].strip(), text)
    assert done.returncode == bool(found), done.stdout + done.stderr
    return found


def test_every_provider_is_a_call_that_mypy_accepts(tmp_path: Path) -> None:
    assert type_errors(CONTAINER.read_text(encoding="utf-8"), tmp_path / "calls.py") == {}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return type_errors(SWAPPED, tmp_path_factory.mktemp("wrong") / "wrong_calls.py")


def test_swapped_arguments_are_found(wrong: dict[str, str]) -> None:
    assert 'Argument "clock" to "Service" has incompatible type "Log"; expected "Clock"' in wrong["swapped"]
    assert 'Argument "clock" to "Service" has incompatible type "Console"' in wrong["nested"]


def test_wrong_keywords_are_found(wrong: dict[str, str]) -> None:
    assert 'Unexpected keyword argument "logs"' in wrong["misspelt"]
    assert 'Missing positional argument "lifetime"' in wrong["missing"]


def test_a_setting_that_does_not_exist_is_found(wrong: dict[str, str]) -> None:
    assert 'has no attribute "liftime"' in wrong["setting"]


def test_a_class_that_does_not_implement_its_port_is_found(wrong: dict[str, str]) -> None:
    assert 'variable has type "Clock"' in wrong["port"]


def test_only_the_wrong_providers_are_reported(wrong: dict[str, str]) -> None:
    assert set(wrong) == {"swapped", "nested", "misspelt", "missing", "setting", "port"}


def test_providers_take_keyword_arguments_only() -> None:
    container = ast.parse(CONTAINER.read_text(encoding="utf-8"))
    found = [
        ast.unparse(node)
        for node in ast.walk(container)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS and len(node.args) != 1
    ]
    assert found == []


def test_every_provider_is_annotated() -> None:
    module = ast.parse(CONTAINER.read_text(encoding="utf-8"))
    container = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Container")
    others = [ast.unparse(node) for node in container.body if not isinstance(node, ast.AnnAssign | ast.Expr)]
    assert others == []
    assert len(_providers(container)) > 20
