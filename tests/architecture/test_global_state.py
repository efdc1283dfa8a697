"""Module-level values do not change at run time. The exceptions are listed here."""

import ast

from tests.architecture.sources import PACKAGES, Function, files, name_of, parsed

KNOWN = {
    # The user for whom root acts. A command sets it once at its start; it is a property of the process.
    "entrypoints/wiring/storage.py: ACTING.number",
    # Settings of a library that can only be set on its module or class, before it starts.
    "entrypoints/http/app.py: Http.HEADER_CEILING",
    "entrypoints/server/logging_setup.py: logging.logThreads",
    "entrypoints/server/logging_setup.py: logging.logProcesses",
    "entrypoints/server/logging_setup.py: logging.logMultiprocessing",
    "entrypoints/server/serve.py: Sanic.start_method",
    "adapters/telemetry/traces.py: _LIBRARY.propagate",
    # Changed for the import of a library, and restored after it.
    "adapters/upstream/__init__.py: os.environ['SSL_CERT_FILE']",
    # Bounded caches of pure functions.
    "domain/client_network.py: lru_cache of client_network",
    "domain/documents.py: lru_cache of _outline",
}
MUTATING = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft"),
        *("remove", "setdefault", "sort", "update"),
    }
)


def changes(tree: ast.Module) -> set[str]:
    """The values that the module changes and that are not local to its functions."""
    found: set[str] = set()
    for node in tree.body:
        _look(node, frozenset(), found)
    return found


def _look(node: ast.AST, own: frozenset[str], found: set[str]) -> None:
    """`own`: names that are local to the functions around the node."""
    if isinstance(node, Function | ast.Lambda):
        own |= _local_names(node)
        cached = [ast.unparse(one) for one in getattr(node, "decorator_list", ()) if "lru_cache" in ast.unparse(one)]
        found.update(f"lru_cache of {node.name}" for _ in cached if isinstance(node, Function))
    if isinstance(node, ast.Global):
        found.update(f"global {name}" for name in node.names)
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        _note(node, own, found)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
        _note(node.func, own, found)
    for child in ast.iter_child_nodes(node):
        _look(child, own, found)


def _note(changed: ast.Attribute | ast.Subscript, own: frozenset[str], found: set[str]) -> None:
    root: ast.expr = changed
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if isinstance(root, ast.Name) and root.id not in own:
        found.add(ast.unparse(changed))


def _local_names(function: ast.AST) -> frozenset[str]:
    """The parameters and all names that are bound in the function, including those of comprehensions."""
    arguments = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    bound = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    matched = {node.name for node in ast.walk(function) if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name}
    return frozenset(arguments | bound | matched)


def test_no_module_level_value_changes() -> None:
    found = {f"{name_of(path)}: {change}" for path in files(*PACKAGES) for change in changes(parsed(path))}
    assert found == KNOWN


def test_changes_of_module_level_values_are_found() -> None:
    source = """
SEEN = set()
TABLE: dict[str, int] = {}
def remember(name: str) -> None:
    own = set()
    own.add(name)
    SEEN.add(name)
    def inner() -> None:
        own.add(name)
        TABLE[name] = 1
        Class.attribute = 2
def count() -> None:
    global NUMBER
    NUMBER += 1
@lru_cache
def cached() -> None: ...
"""
    assert changes(ast.parse(source)) == {
        *("SEEN.add", "TABLE[name]", "Class.attribute", "global NUMBER", "lru_cache of cached")
    }
