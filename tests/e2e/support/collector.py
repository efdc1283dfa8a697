"""A collector of traces: an HTTP server that takes OTLP, and remembers the spans."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.support.processes import wait_until
from tests.entrypoints.plain_server import answering


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it arrived. Ids are hexadecimal; `parent_id` is "" for a span without a parent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """`url`: for OTEL_EXPORTER_OTLP_ENDPOINT; `headers`: those of the last request."""

    url: str
    spans: list[CollectedSpan] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def named(self, name: str, count: int = 1) -> list[CollectedSpan]:
        """The spans with this name, when so many have arrived."""
        wait_until(lambda: len(self._named(name)) >= count, 20)
        found = self._named(name)
        assert len(found) == count, sorted(span.name for span in self.spans)
        return found

    def _named(self, name: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collector() -> Iterator[Collector]:
    found = Collector("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.headers = dict(self.headers)
            status = 200 if self.path == "/v1/traces" else 404
            if status == 200:
                found.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, answering(server):
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found


def _spans(request: Any) -> Iterator[CollectedSpan]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield CollectedSpan(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple(link.span_id.hex() for link in span.links),
                    _values(span.attributes),
                    _values(resource.resource.attributes),
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
