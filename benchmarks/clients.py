"""A program that downloads one URL with many clients at the same time and prints the result of each client as JSON.

The kernel discards the received bytes. From a server with TLS (--ca), a client decrypts only the head of the response;
otherwise the clients would need more of the processor than the server. The length of what it does not decrypt shows
whether the body is complete. The clients run in a separate process, so that the interpreter lock of the
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
import ssl
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
# What a record of TLS 1.3 with AES-GCM adds to its content (RFC 8446, section 5.2), and the most content of one.
RECORD_EXTRA, RECORD = 22, 16384
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")


class Sealed:
    """A body, or the rest of one, that is counted while it is encrypted."""

    def __init__(self, content: int) -> None:
        self._least = content + RECORD_EXTRA * -(-content // RECORD)
        self.received = 0

    @property
    def is_whole(self) -> bool:
        return self.received >= self._least


class Client:
    """One GET request on a separate connection."""

    def __init__(self, port: int, *, slow: bool, hashing: bool, tls: ssl.SSLContext | None) -> None:
        self._socket = socket.socket()
        if slow:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_WINDOW)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SLOW_SEGMENT)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", port))
        if tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self._hash = hashlib.sha256() if hashing else None
        # With MSG_TRUNC the kernel returns the number of bytes and does not copy them.
        self._flags = 0 if hashing else socket.MSG_TRUNC
        self._head = b""
        self._expected: int | None = None
        self._began = self._first = self._ended = 0.0
        self._status = self.received = 0
        self._sealed: Sealed | None = None
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
            if not self._status:
                self._read_head()
            elif self._sealed:
                self._take_sealed(self._sealed, self._socket.recv_into(room, len(room), self._flags))
            else:
                self._take(self._socket.recv_into(room, len(room), self._flags), room)
        except (BlockingIOError, ssl.SSLWantReadError):
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
        if isinstance(self._socket, ssl.SSLSocket) and not self._hash and not self.is_over:
            self._stop_decrypting(self._socket)

    def _stop_decrypting(self, connection: ssl.SSLSocket) -> None:
        # OpenSSL reads single records, so what it has not decrypted is still in the kernel.
        self._sealed = Sealed((self._expected or 0) - self.received)
        self._socket = socket.socket(fileno=connection.detach())

    def _take(self, count: int, piece: memoryview) -> None:
        if count and not self._first:
            self._first = time.perf_counter()
        self.received += count
        if self._hash:
            self._hash.update(piece[:count])
        if not count or self.received == self._expected:
            self._finish("" if self.received == self._expected else "cut short")

    def _take_sealed(self, sealed: "Sealed", count: int) -> None:
        """Finish at the end of the connection, because the exact length of the encrypted body is not known."""
        if count:
            self._first = self._first or time.perf_counter()
            sealed.received += count
        elif sealed.is_whole:
            self.received = self._expected or 0
            self._finish("")
        else:
            self.received += sealed.received
            self._finish("cut short")

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
    parser.add_argument("--ca", help="use TLS, and trust the certificates of this authority (a PEM file)")
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
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    clients = [Client(options.port, slow=slow, hashing=options.hash and not n, tls=tls) for n in range(options.clients)]
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
