"""A program that downloads one URL with many clients at the same time and prints the result of each client as JSON.

The kernel discards the received bytes. The clients run in a separate process, so that the interpreter lock of the
benchmarks does not slow them down. Each client has a thread, because one core was too slow to read what the fastest
server sends; the threads wait in the kernel without the interpreter lock. With --rate, one thread reads for all clients
at this rate, and the program prints a line as soon as every client has received its first byte.
"""

import argparse
import hashlib
import heapq
import json
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

PIECE = 4 << 20
PACE = 0.5  # seconds between two reads of a slow client
# The receive buffer and the segment size (that of Ethernet) of a slow client. With the segments of loopback (64 KiB),
# the kernel would buffer megabytes for each client, and the server would have nothing to send for a minute.
SLOW_WINDOW, SLOW_SEGMENT = 64 << 10, 1448
PATIENCE = 60  # seconds; a server that sends a client nothing for this time has failed
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")


class Client:
    """One GET request on a separate connection."""

    def __init__(self, port: int, *, slow: bool, hashing: bool) -> None:
        self._socket = socket.socket()
        if slow:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_WINDOW)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SLOW_SEGMENT)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", port))
        self._hash = hashlib.sha256() if hashing else None
        # With MSG_TRUNC the kernel returns the number of bytes and does not copy them.
        self._flags = 0 if hashing else socket.MSG_TRUNC
        self._head = b""
        self._expected: int | None = None
        self._began = self._first = self._ended = 0.0
        self._status = self.received = 0
        self.error = ""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_begun(self) -> bool:
        return self._first > 0 or self.is_over

    @property
    def is_over(self) -> bool:
        return self._ended > 0

    def ask(self, request: bytes) -> None:
        self._began = time.perf_counter()
        self._socket.sendall(request)
        self._socket.setblocking(False)

    def read_on(self, until: float) -> None:
        """Read as fast as the server sends, until the body or the time is over or the server sends nothing more."""
        room = memoryview(bytearray(PIECE))
        self._socket.setblocking(True)
        # A timeout in the kernel, because a timeout of Python costs one more system call for each read.
        wait = struct.pack("ll", max(1, int(min(until - time.perf_counter(), PATIENCE))), 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        while not self.is_over and time.perf_counter() < until:
            if not self.read(room):
                return

    def read(self, room: memoryview) -> bool:
        """Read once into `room`. Returns False if no bytes have arrived."""
        try:
            if self._status:
                count = self._socket.recv_into(room, len(room), self._flags)
                self._take(count, room)
            else:
                self._read_head()
        except BlockingIOError:
            return False
        except OSError as error:
            self._finish(str(error))
        return True

    def _read_head(self) -> None:
        piece = self._socket.recv(16384)
        if not piece:
            self._finish("closed without an answer")
        self._head += piece
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head)
        self._expected = int(length[1]) if length else None
        if body or self._expected == 0:
            self._take(len(body), memoryview(body))

    def _take(self, count: int, piece: memoryview) -> None:
        if count and not self._first:
            self._first = time.perf_counter()
        self.received += count
        if self._hash:
            self._hash.update(piece[:count])
        if not count or self.received == self._expected:
            self._finish("" if self.received == self._expected else "cut short")

    def _finish(self, error: str) -> None:
        if not self.is_over:
            self._ended = time.perf_counter()
            self.error = error
            self._socket.close()

    def stop(self) -> None:
        self._finish("stopped")

    @property
    def span(self) -> tuple[float, float]:
        return self._began, self._ended

    def record(self) -> dict[str, object]:
        return {
            "status": self._status,
            "bytes": self.received,
            "whole": self.received == self._expected,
            "first_byte": self._first - self._began if self._first else None,
            "seconds": self._ended - self._began,
            "digest": f"sha256:{self._hash.hexdigest()}" if self._hash else None,
            "error": self.error,
        }


def run_freely(clients: Sequence[Client], until: float) -> None:
    threads = [threading.Thread(target=client.read_on, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_slowly(clients: Sequence[Client], until: float, rate: int) -> None:
    room = memoryview(bytearray(max(1, int(rate * PACE))))
    began, waiting = time.perf_counter(), len(clients)
    # The first reads are spread over the pause, so that the clients do not all read at the same moment.
    due = [(began + PACE * number / len(clients), number) for number in range(len(clients))]
    while due and due[0][0] < until:
        when, number = heapq.heappop(due)
        time.sleep(max(0, when - time.perf_counter()))
        client = clients[number]
        had_begun = client.has_begun
        client.read(room)
        if client.has_begun and not had_begun:
            waiting -= 1
            if not waiting:
                print(json.dumps({"begun": len(clients)}), flush=True)
        if not client.is_over:
            heapq.heappush(due, (when + PACE, number))


def request_of(options: argparse.Namespace) -> bytes:
    lines = [f"GET {options.path} HTTP/1.1", f"Host: 127.0.0.1:{options.port}", "Connection: close", *options.header]
    return "\r\n".join([*lines, "", ""]).encode()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--header", action="append", default=[], help="one line of the request's head")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--hash", action="store_true", help="compute the digest of what the first client receives")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second for each client")
    parser.add_argument("--seconds", type=float, default=600, help="stop after this time")
    return parser.parse_args(argv)


def totals(clients: Sequence[Client]) -> Iterator[tuple[str, object]]:
    spans = [client.span for client in clients]
    yield "seconds", max(end for _, end in spans) - min(begin for begin, _ in spans)
    yield "bytes", sum(client.received for client in clients)
    yield "clients", [client.record() for client in clients]


def main(argv: Sequence[str]) -> None:
    options = parse(argv)
    # SIGTERM ends the slow clients; the program still prints their results.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    slow = options.rate > 0
    clients = [Client(options.port, slow=slow, hashing=options.hash and not n) for n in range(options.clients)]
    request = request_of(options)
    until = time.perf_counter() + options.seconds
    with suppress(SystemExit):
        for client in clients:
            client.ask(request)
        if slow:
            run_slowly(clients, until, options.rate)
        else:
            run_freely(clients, until)
    for client in clients:
        client.stop()
    print(json.dumps(dict(totals(clients))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
