"""A relay in front of a registry: `logging_relay.py PORT BACKEND_PORT`, a program with one log line per request.

It forwards each request unchanged and logs what docker-registry does not log: the scheme of the Authorization header
and the user. It also answers referrers, which docker-registry 2.8 does not support, and answers them to everyone, so
that a mirror without its own check would be detected.
"""

import base64
import http.client
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BACKEND_PORT = int(sys.argv[2])
REFERRERS = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": "sha256:" + "5ec2e7" * 10 + "abcd",
                "size": 1234,
                "artifactType": "application/vnd.e2e.secret",
            }
        ],
    }
).encode()


def user_in(scheme: str | None, value: str) -> str | None:
    """The user of the credentials, unverified: the user name of Basic, the subject of a token."""
    if scheme == "Basic":
        return base64.b64decode(value).decode().partition(":")[0]
    if scheme == "Bearer" and value.count(".") == 2:
        claims = value.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "==")).get("sub"))
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if re.fullmatch(r"/v2/.+/referrers/[^/]+", self.path.partition("?")[0]):
            headers = [("Content-Type", "application/vnd.oci.image.index.v1+json")]
            self.give(200, [*headers, ("Content-Length", str(len(REFERRERS)))], REFERRERS)
            return
        backend = http.client.HTTPConnection("127.0.0.1", BACKEND_PORT, timeout=30)
        try:
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                backend.putheader(name, value)
            backend.endheaders()
            answer = backend.getresponse()
            hop = {"connection", "transfer-encoding", "keep-alive"}
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in hop]
            self.give(answer.status, kept, answer.read())
        finally:
            backend.close()

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def give(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        note = {
            "method": self.command, "path": self.path, "status": status, "authorization": scheme or None,
            "user": user_in(scheme, value), "agent": self.headers.get("User-Agent", ""),
        }  # fmt: skip
        # One write: print writes the line end separately, so lines of several threads could mix.
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Does nothing: `give` writes the log line."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
