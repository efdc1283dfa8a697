"""Outbound proxies: one that tunnels by CONNECT (RFC 9110 section 9.3.6), and one that speaks SOCKS 5."""

import asyncio
import ipaddress
import ssl
from contextlib import suppress
from typing import Self

_TO_THEMSELVES = frozenset({"registry.test", "other.test"})
"""Names that only the proxies can resolve: the requested port on this machine."""
_SUCCEEDED, _REFUSED = 0, 5
_NO_LOGIN, _BY_PASSWORD, _NOTHING = 0, 2, 255


class Relay:
    """Listens on loopback, accepts or refuses, and then copies bytes in both directions. `targets`: the host and port
    of each connection.
    """

    scheme = ""

    def __init__(self, login: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.targets: list[tuple[str, int]] = []
        self.logins: list[str] = []
        self._login = login
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, login: str = "", scheme: str = "") -> str:
        return f"{scheme or self.scheme}://{login + '@' if login else ''}127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if await self._agrees(reader, writer):
                host, port = self.targets[-1]
                there = await asyncio.open_connection("127.0.0.1" if host in _TO_THEMSELVES else host, port)
                try:
                    await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
                finally:
                    there[1].transport.abort()
        writer.transport.abort()

    async def _agrees(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raise NotImplementedError


class TunnelProxy(Relay):
    """`login`: the Proxy-Authorization that it requires."""

    scheme = "http"

    async def _agrees(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        given = [line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("proxy-auth")]
        self.logins += given
        if method != "CONNECT" or (self._login and given != [self._login]):
            writer.write(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n")
            await reader.read()
            return False
        host, _, port = target.rpartition(":")
        self.targets.append((host, int(port)))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        return True


class SocksProxy(Relay):
    """RFC 1928. `login`: the `user:password` that it requires (RFC 1929). `refuses`: it opens no connection."""

    scheme = "socks5"
    refuses = False

    async def _agrees(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = _BY_PASSWORD if self._login else _NO_LOGIN
        if version != 5 or wanted not in methods:
            writer.write(bytes([5, _NOTHING]))
            await reader.read()
            return False
        writer.write(bytes([5, wanted]))
        if self._login and not await self._knows(reader, writer):
            await reader.read()  # the refused client closes the connection
            return False
        _, command, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        self.targets.append((host, int.from_bytes(await reader.readexactly(2))))
        agrees = command == 1 and not self.refuses
        writer.write(bytes([5, _SUCCEEDED if agrees else _REFUSED, 0, 1, 0, 0, 0, 0, 0, 0]))
        if not agrees:
            await reader.read()
        return agrees

    async def _knows(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readexactly(1)
        user = await reader.readexactly((await reader.readexactly(1))[0])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        self.logins.append(f"{user.decode()}:{password.decode()}")
        knows = self.logins[-1] == self._login
        writer.write(bytes([1, 0 if knows else 1]))
        return knows


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
