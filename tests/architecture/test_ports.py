import ast

from tests.architecture.sources import PACKAGES, Function, files, module_of, name_of, parsed, protocols

PORTS = {f"{module_of(path)}.{port.name}": port for path in files(*PACKAGES) for port in protocols(parsed(path))}


def test_the_known_ports_are_found() -> None:
    assert {
        "domain.ports.Clock",
        "domain.ports.TokenCodec",
        "domain.ports.AccountDirectory",
        "domain.ports.PublicSuffixes",
        "application.ports.content.ContentStore",
        "application.ports.content.PartialBlob",
        "application.ports.content.StorageMaintenance",
        "application.ports.index.KnowledgeIndex",
        "application.ports.index.UsageIndex",
        "application.ports.lease.DownloadLease",
        "application.ports.lease.DownloadLeases",
        "application.ports.lease.FollowedPartialBlob",
        "application.ports.slow_steps.SlowSteps",
        "application.ports.telemetry.AllowanceTable",
        "application.ports.telemetry.EventSink",
        "application.ports.telemetry.MetricsPage",
        "application.ports.upstream.TokenRelay",
        "application.ports.upstream.UpstreamRegistry",
        "application.ports.upstream.UpstreamSearch",
    } <= set(PORTS)


def test_a_port_has_no_method_that_nothing_calls() -> None:
    called = {
        node.attr
        for path in files("domain", "application", "entrypoints")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
    }
    methods = [
        (name, member.name) for name, port in PORTS.items() for member in port.body if isinstance(member, Function)
    ]
    assert methods
    assert [f"{name}.{method}" for name, method in methods if method not in called] == []


def test_every_port_has_a_docstring() -> None:
    assert [name for name, port in PORTS.items() if not ast.get_docstring(port)] == []


def test_ports_are_defined_only_in_the_modules_for_ports() -> None:
    assert [name for name in PORTS if not name.startswith(("domain.ports.", "application.ports."))] == []


def test_no_class_inherits_from_a_port() -> None:
    # A method that is inherited from a Protocol returns None without an error.
    names = {name.rpartition(".")[2] for name in PORTS}
    found = {
        f"{name_of(path)}: {node.name}"
        for path in files(*PACKAGES, "benchmarks", "tests")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and {ast.unparse(base).rpartition(".")[2] for base in node.bases} & names
    }
    assert found == set()
