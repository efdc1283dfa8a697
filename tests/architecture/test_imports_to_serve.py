"""`serve` imports only what it needs: an import delays the start, and its memory is part of each process."""

import subprocess
import sys

import pytest

from tests.architecture.sources import ROOT

NOT_NEEDED = {
    "aiohttp_socks": "only a mirror with a SOCKS proxy needs it",
    "python_socks": "the same",
    "cryptography": "TLS and HS256 are in the standard library; as large as Sanic",
    "jinja2": "imported when the page is first opened",
    "entrypoints.http.page.rendering": "the same",
    "joserfc": "the same; imports cryptography",
    "obstore": "only replicas have a shared store",
    "redis": "only replicas have a shared index",
    "opentelemetry": "only a mirror with a collector of traces makes traces",
    "requests": "the same",
    "rich": "only commands print tables",
    "entrypoints.commands.doctor": "another command",
    "entrypoints.commands.cache_commands": "another command",
    "entrypoints.commands.warm_command": "another command",
}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The modules that the main process has imported when it starts to serve, and so its workers."""
    script = "import sys, entrypoints.start, entrypoints.cli, entrypoints.server.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", NOT_NEEDED)
def test_serve_does_not_import(module: str, imported: set[str]) -> None:
    assert "sanic" in imported
    assert module not in imported, NOT_NEEDED[module]
