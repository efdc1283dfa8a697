"""The OCI distribution-spec conformance suites, against a registry directly and through the mirror; the results beside
each other. `scripts/conformance` runs it.

Only reads go through the mirror: a switch sends every other method to the registry, so that each suite puts its own
content there. The tests of the parts pull and content discovery are compared. The suite v1.1.1 runs only these parts.
The suite main has no switch for a part that needs content of another, so it runs without deletion, and the results of
its writes are left out: in both runs the registry itself answers them.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.e2e.support.docker_registry import docker_registry
from tests.e2e.support.processes import program
from tests.e2e.support.service import serving

MODULE = "github.com/opencontainers/distribution-spec/conformance"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_WRITE = re.compile(r"/(push|delete)/|/(blob-(post|put|patch|mount|delete)|manifest-put|tag-delete)[^/]*$")
"""The names of tests of main that write."""
Results = dict[str, Counter[str]]
"""How often each outcome (passed, failed, skipped) came, by the name of a test. Several tests can have one name, and
the suite main runs these in a random order, so only their numbers can be compared.
"""
_RUN_SECONDS = 900
_BUILD_SECONDS = 900


@dataclass(frozen=True)
class Suite:
    """One version of the suite. `tag` is what a checkout calls it, `version` what the Go module proxy does; one that
    `is_test` is a Go test, the other a program.
    """

    name: str
    tag: str
    version: str
    is_test: bool


SUITES = (
    # The module has no version tags of its own, so a release is a commit: that of v1.1.1.
    Suite("v1.1.1", "v1.1.1", "v0.0.0-20250123160558-a139cc423184", is_test=True),
    Suite("main", "HEAD", "latest", is_test=False),
)


class SuiteMissingError(Exception):
    """The suite cannot be had or built here; the message says why."""


def build(suite: Suite, source: Path | None, folder: Path) -> Path:
    """The suite as a program below `folder`, from a checkout of distribution-spec or from the module proxy."""
    code, binary = folder / f"{suite.name}-source", folder / f"{suite.name}-suite"
    if source:
        code.mkdir()
        command = ["git", "-C", str(source), "archive", suite.tag, "conformance"]
        archive = subprocess.run(command, capture_output=True, check=False)
        if archive.returncode:
            raise SuiteMissingError(f"the checkout has no {suite.tag}")
        subprocess.run(["tar", "-x", "-C", str(code), "--strip-components=1"], input=archive.stdout, check=True)
    else:
        found = _go(folder, "mod", "download", "-json", f"{MODULE}@{suite.version}")
        outcomes = json.loads(found.stdout or "{}")
        if found.returncode or "Dir" not in outcomes:
            raise SuiteMissingError(
                f"the Go module proxy does not give it; name a checkout with --source ({suite.tag})"
            )
        shutil.copytree(outcomes["Dir"], code)
        for path in (code, *code.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
    words = ["test", "-c"] if suite.is_test else ["build"]
    built = _go(code, *words, "-o", str(binary), ".")
    if built.returncode:
        raise SuiteMissingError(f"it does not build: {built.stderr.strip().splitlines()[-1:]}")
    return binary


def _go(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "GOFLAGS": "-mod=mod"}
    return subprocess.run(
        ["go", *words], cwd=folder, env=environ, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )


def run(suite: Suite, binary: Path, address: str, folder: Path) -> Results:
    folder.mkdir()
    if suite.is_test:
        settings = {
            "OCI_ROOT_URL": f"http://{address}", "OCI_NAMESPACE": f"conformance/{folder.name}",
            "OCI_TEST_PULL": "1", "OCI_TEST_CONTENT_DISCOVERY": "1", "OCI_REPORT_DIR": str(folder),
        }  # fmt: skip
    else:
        settings = {
            "OCI_REGISTRY": address, "OCI_TLS": "disabled", "OCI_RESULTS_DIR": str(folder),
            "OCI_REPO1": f"conformance/{folder.name}", "OCI_REPO2": f"conformance/{folder.name}-2",
            "OCI_API_BLOBS_DELETE": "false", "OCI_API_MANIFESTS_DELETE": "false", "OCI_API_TAGS_DELETE": "false",
        }  # fmt: skip
    with (folder / "output.log").open("w") as log:
        subprocess.run(
            [str(binary)], cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder), **settings},
            stdout=log, stderr=log, timeout=_RUN_SECONDS, check=False,
        )  # fmt: skip
    report = folder / "junit.xml"
    if not report.exists():
        raise SuiteMissingError(f"it wrote no report: {(folder / 'output.log').read_text()[-500:]}")
    return read_report(report, folder.name)


def read_report(report: Path, repository: str) -> Results:
    """The results in a JUnit report of either suite. The name of the repository, which differs between the two runs, is
    taken out of the names of the tests.
    """
    results: Results = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by the suite just now
        name = f"{case.get('classname') or ''} {case.get('name') or ''}".strip().replace(repository, "REPOSITORY")
        if not _WRITE.search(name):
            kinds = {child.tag for child in case} | {case.get("status") or ""}
            results.setdefault(name, Counter())[_outcome(kinds)] += 1
    return results


def _outcome(outcomes: set[str]) -> str:
    """Ginkgo says it by an element below the test, the program of main by an attribute alone."""
    if outcomes & {"failure", "error", "failed"}:
        return "failed"
    return "skipped" if outcomes & {"skipped", "disabled"} else "passed"


def _body_of(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in (handler.headers.get("Transfer-Encoding") or "").lower():
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    pieces = []
    while size := int(handler.rfile.readline().partition(b";")[0], 16):  # RFC 9112 section 7.1
        pieces.append(handler.rfile.read(size))
        handler.rfile.readline()
    while handler.rfile.readline() not in {b"\r\n", b"\n", b""}:
        """Trailers."""
    return b"".join(pieces)


@contextmanager
def switch(reads: str, writes: str) -> Iterator[str]:  # noqa: C901 - one exchange, read from its beginning to its end
    """The `host:port` of a server that hands GET and HEAD to one address and every other method to another."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _hand_on(self) -> None:
            body = _body_of(self)
            connection = http.client.HTTPConnection(reads if self.command in {"GET", "HEAD"} else writes, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # Accept may come in several lines
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            if body or self.command in {"PUT", "POST", "PATCH"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            if length is not None:
                self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _hand_on  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Says nothing of its requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def compare(suite: Suite, direct: Results, mirrored: Results) -> int:
    """Print the table; how many tests pass directly and not through the mirror."""
    print(f"\n{suite.name:<10}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for title, results in (("directly", direct), ("mirrored", mirrored)):
        counts = sum(results.values(), Counter[str]())
        print(f"{title:<10}{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>9}")
    worse = 0
    for name in sorted(direct.keys() | mirrored.keys()):
        before, behind = direct.get(name, Counter()), mirrored.get(name, Counter())
        worse += max(0, before["passed"] - behind["passed"])
        if before != behind:
            print(f"  differs: {name}: {_told(before)} directly, {_told(behind)} through the mirror")
    return worse


def _told(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "absent"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the OCI conformance suites directly and through the mirror.")
    parser.add_argument("--source", type=Path, help="a git checkout of distribution-spec, instead of the module proxy")
    parser.add_argument("--only", choices=[suite.name for suite in SUITES], help="one suite")
    parser.add_argument("--keep", type=Path, help="a new folder in which the reports stay")
    arguments = parser.parse_args()
    for needed in ("go", "docker-registry"):
        if not program(needed):
            print(f"skipped: there is no {needed} here")
            return 0
    folder = Path(tempfile.mkdtemp(prefix="dip-conformance-"))
    worse = 0
    try:
        for suite in SUITES:
            if arguments.only in {None, suite.name}:
                worse += _both_ways(suite, arguments.source, folder)
    finally:
        if arguments.keep:
            shutil.copytree(folder, arguments.keep)
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if worse else 0


def _both_ways(suite: Suite, source: Path | None, folder: Path) -> int:
    try:
        binary = build(suite, source, folder)
        (work := folder / suite.name).mkdir()
        (content := work / "content").mkdir()
        with docker_registry(work, content, "conformance") as registry:
            direct = run(suite, binary, f"127.0.0.1:{registry.port}", work / "direct")
            # The suite gives a tag another meaning and reads it at once, which a mirror knows when TAG_TTL is over.
            settings = {"UPSTREAM_REGISTRY": registry.url, "TAG_TTL": "0"}
            with (
                serving(work, **settings) as proxy,
                switch(f"127.0.0.1:{proxy.port}", f"127.0.0.1:{registry.port}") as address,
            ):
                mirrored = run(suite, binary, address, work / "mirrored")
    except SuiteMissingError as missing:
        print(f"\n{suite.name}: skipped: {missing}")
        return 0
    return compare(suite, direct, mirrored)


if __name__ == "__main__":
    sys.exit(main())
