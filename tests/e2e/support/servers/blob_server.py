"""A file server behind a registry: `blob_server.py PORT FOLDER`, a program with one log line per request.

It represents the CDN that a registry redirects to: like S3, it answers a request with Authorization with 400. It also
answers `/v2/` and serves files by digest, so that a test of one huge file needs no registry.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = Path(sys.argv[2]).resolve()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/v2/":
            self.start(200, 2, {"Docker-Distribution-Api-Version": "registry/2.0"})
            self.wfile.write(b"{}")
            return
        by_digest = path.startswith("/v2/")
        file = FOLDER / (path.rpartition("/blobs/")[2] if by_digest else path.lstrip("/"))
        if "Authorization" in self.headers:
            self.start(400, 0, {})
        elif ".." in path or not file.is_file():
            self.start(404, 0, {})
        else:
            self.send_file(file)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def send_file(self, file: Path) -> None:
        size = file.stat().st_size
        first, last = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and asked[1]:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        elif asked:
            first = size - int(asked[2])
        more = {"Accept-Ranges": "bytes"}
        if asked:
            more["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.start(206 if asked else 200, last - first + 1, more)
        if self.command == "GET":
            with file.open("rb") as source:
                self.connection.sendfile(source, first, last - first + 1)

    def start(self, status: int, length: int, more: dict[str, str]) -> None:
        note = {
            "method": self.command, "path": self.path, "status": status,
            "authorization": "Authorization" in self.headers, "agent": self.headers.get("User-Agent", ""),
        }  # fmt: skip
        # One write: print writes the line end separately, so lines of several threads could mix.
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()
        self.send_response(status)
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream", **more}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Does nothing: `start` writes the log line."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
