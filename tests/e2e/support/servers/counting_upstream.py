"""A registry with an allowance: `counting_upstream.py PORT FOLDER LIMIT`, otherwise like `faulty_upstream.py`.

It counts like Docker Hub: each answered GET of a manifest counts as one, for all clients together; HEADs, blobs and
`/v2/` do not count. Answers about manifests show the remaining number. If it is 0, manifests are answered with 429.
"""

import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from faulty_upstream import Handler, Rule

LIMIT = int(sys.argv[3])
WINDOW = 21600
RETRY_AFTER = "300"


class Counter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.left = LIMIT

    def take(self, count: int) -> bool:
        """Whether the allowance was not used up."""
        with self._lock:
            if not self.left:
                return False
            self.left -= count
            return True


COUNTER = Counter()


class CountingHandler(Handler):
    def give_content(self, file: Path, *, is_manifest: bool, rule: Rule) -> None:
        if is_manifest and not COUNTER.take(1 if self.command == "GET" else 0):
            self.give_error(429, "TOOMANYREQUESTS", {"Retry-After": RETRY_AFTER})
        else:
            super().give_content(file, is_manifest=is_manifest, rule=rule)

    def give(self, status: int, body: bytes, headers: dict[str, str], rule: Rule) -> None:
        if "/manifests/" in self.path:
            shown = {"ratelimit-limit": LIMIT, "ratelimit-remaining": COUNTER.left}
            headers = headers | {name: f"{number};w={WINDOW}" for name, number in shown.items()}
            headers["docker-ratelimit-source"] = "127.0.0.1"
        super().give(status, body, headers, rule)


if __name__ == "__main__":
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), CountingHandler).serve_forever()
