"""A program that passes TCP connections on to a server and limits the rate of what the server sends.

The rate of each connection is limited, or that of all connections together, of which each that has something to send
gets the same share. The limit holds from the first byte. Ten times a second the program prints a line of JSON with the
bytes that each connection has passed on since the line before, but not if there were none.

A relay and not nginx: the `limit_rate` of nginx begins anew with each request, and a response that is sent within a
second is not limited at all.
"""

import argparse
import asyncio
import itertools
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

PIECE = 256 << 10  # bytes; less for a small rate, so that a piece takes about BURST
BURST = 0.02  # seconds; after a pause, the bytes of this time can be sent at once
SLOT = 0.1  # seconds
SEND_BUFFER = 256 << 10  # bytes; small, because what is in it counts as sent even if the client does not read it


class Bucket:
    """The times at which bytes may be sent. Those who wait are served in the order in which they came."""

    def __init__(self, rate: int) -> None:
        self.rate = rate  # bytes a second
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        now = time.monotonic()
        self._free_at = max(self._free_at, now - BURST) + count / self.rate
        await asyncio.sleep(max(0, self._free_at - now))


class Relay:
    def __init__(self, target: int, each: int, in_all: int) -> None:
        self._target = target
        self._each = each
        self._common = Bucket(in_all) if in_all else None
        self._numbers = itertools.count(1)
        self._sent: Counter[int] = Counter()  # bytes by connection, in the current slot
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, port: int) -> None:
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted sockets inherit it
        listener.setblocking(False)
        _ = self._start(self._report())
        while True:
            client, _ = await self._loop.sock_accept(listener)
            client.setblocking(False)
            _ = self._start(self._serve(client, next(self._numbers)))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return task

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(SLOT)
            if self._sent:
                print(json.dumps({"at": time.monotonic(), "sent": self._sent}), flush=True)
                self._sent.clear()

    async def _serve(self, client: socket.socket, number: int) -> None:
        with client, socket.socket() as server:
            server.setblocking(False)
            with suppress(OSError):
                await self._loop.sock_connect(server, ("127.0.0.1", self._target))
                both = [self._start(self._up(client, server)), self._start(self._down(server, client, number))]
                # If one side has closed its connection, the other side is closed too.
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in both:
                    task.cancel()
                await asyncio.wait(both)

    async def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := await self._loop.sock_recv(client, 65536):
                await self._loop.sock_sendall(server, piece)

    async def _down(self, server: socket.socket, client: socket.socket, number: int) -> None:
        buckets = [self._common] if self._common else []
        buckets += [Bucket(self._each)] if self._each else []
        size = min(PIECE, *(int(bucket.rate * BURST) for bucket in buckets))
        room = memoryview(bytearray(size))
        with suppress(OSError):
            while count := await self._loop.sock_recv_into(server, room):
                for bucket in buckets:
                    await bucket.take(count)
                await self._loop.sock_sendall(client, room[:count])
                self._sent[number] += count


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("target", type=int, help="the port of the server, on loopback")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--each", type=int, default=0, help="bytes a second of each connection")
    limit.add_argument("--in-all", type=int, default=0, help="bytes a second of all connections together")
    return parser.parse_args(argv)


async def main(argv: Sequence[str]) -> None:
    options = parse(argv)
    await Relay(options.target, options.each, options.in_all).run(options.port)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
