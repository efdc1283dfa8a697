"""A program that watches a mirror as operators do: its page is open, and its metrics are scraped each second.

It has an event stream of the page open for running downloads and one for recent pulls, as a browser has, or only
scrapes. It prints `watching` when it has received an event of each and the metrics once, and ends at the end of its
standard input. Then it prints what it has received as JSON. It is a separate process, so that it does not slow down the
clients.
"""

import argparse
import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

STREAMS = ("/now/events", "/pulls/events")
METRICS = "/metrics"
SCRAPE_SECONDS = 1.0
_PATIENCE = 10  # seconds; the time-out of a scrape that Prometheus has by default
_SILENCE = 60  # seconds; the mirror sends a comment more often
_PAUSE = 1.0  # before a browser connects again
START_SECONDS = 20.0  # in which a mirror has to send the first event of each stream and its metrics


@dataclass
class Watch:
    """What the watchers of all mirrors of a run have received. `problems`: why one of them did not get it."""

    mirrors: int = 0
    received: Counter[str] = field(default_factory=Counter)  # events and scrapes, by path
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, url: str, ca: Path | None, *, is_page_open: bool = True) -> Iterator[None]:
        """Watch this mirror until the context ends: scrape its metrics, and have its page open if `is_page_open`. `ca`:
        the authority that the watcher trusts, if it uses TLS.
        """
        argv = [sys.executable, __file__, url, str(START_SECONDS)]
        argv += [*(["--ca", str(ca)] if ca else []), *([] if is_page_open else ["--no-page"])]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            if not process.stdout.readline():
                raise RuntimeError(f"{url}: its page or its metrics cannot be watched")
            try:
                yield
            finally:
                last, _ = process.communicate()
                self._add(json.loads(last))

    def _add(self, record: dict[str, Any]) -> None:
        self.mirrors += 1
        self.received.update(record["received"])
        self.problems = list(dict.fromkeys([*self.problems, *record["problems"]]))

    def text(self) -> str:
        """For the report."""
        events = sum(self.received[path] for path in STREAMS)
        return (
            "During the whole run, each mirror had two event streams of its page open "
            f"({' and '.join(f'`{path}`' for path in STREAMS)}), and its metrics were scraped each second. "
            "Of several replicas, one had its page open. "
            f"Mirrors: {self.mirrors}; received events: {events:,}; scrapes: {self.received[METRICS]:,}."
        )


class Watcher:
    """The clients of one mirror, each with a thread."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, streams: Sequence[str]) -> None:
        self._address = urlsplit(url)
        self._tls = tls
        self._streams = streams
        self.received: Counter[str] = Counter()
        self.problems: list[str] = []

    def start(self) -> None:
        for path in self._streams:
            self._in_thread(lambda path=path: self._listen(path), _PAUSE)
        self._in_thread(self._scrape, SCRAPE_SECONDS)

    def has_all(self) -> bool:
        return all(self.received[path] for path in (*self._streams, METRICS))

    def _in_thread(self, work: Callable[[], None], pause: float) -> None:
        def repeat() -> None:
            while True:
                began = time.monotonic()
                try:
                    work()
                except (OSError, http.client.HTTPException) as error:
                    self.problems.append(repr(error))
                time.sleep(max(0.0, pause - (time.monotonic() - began)))

        threading.Thread(target=repeat, daemon=True).start()

    def _get(self, path: str, patience: float) -> http.client.HTTPResponse:
        host, port = self._address.hostname or "", self._address.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=patience, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=patience)
        )
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"{path}: status {response.status}")
        return response

    def _listen(self, path: str) -> None:
        """Count the events until the stream ends, as it does at a reload. A comment is no event."""
        has_data = False
        with self._get(path, _SILENCE) as response:
            for line in response:
                if line == b"\n":
                    self.received[path] += has_data
                has_data = line.startswith(b"data:")

    def _scrape(self) -> None:
        with self._get(METRICS, _PATIENCE) as response:
            response.read()
        self.received[METRICS] += 1


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("seconds", type=float, help="in which everything must have been received once")
    parser.add_argument("--ca", help="the file of the authority that is trusted")
    parser.add_argument("--no-page", action="store_true", help="only scrape the metrics")
    options = parser.parse_args(argv)
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    watcher = Watcher(options.url, tls, () if options.no_page else STREAMS)
    watcher.start()
    end = time.monotonic() + options.seconds
    while not watcher.has_all():
        if time.monotonic() > end:
            print(watcher.problems, file=sys.stderr)
            return 1
        time.sleep(0.01)
    print("watching", flush=True)
    sys.stdin.read()
    print(json.dumps({"received": watcher.received, "problems": watcher.problems}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
