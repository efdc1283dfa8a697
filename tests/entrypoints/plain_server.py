"""A server of one's own for a test, of the standard library, on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer
from threading import Thread


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Its address, for as long as the block lasts. It says nothing of its requests."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    with HTTPServer(("127.0.0.1", 0), quiet) as server, answering(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


@contextmanager
def answering(server: BaseServer) -> Iterator[None]:
    """The server answers in a thread until the block ends, also if it ends by an error."""
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
