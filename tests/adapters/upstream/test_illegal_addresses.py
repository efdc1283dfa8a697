"""URLs from an upstream with characters that a URL must not contain."""

import socket
from typing import Any

import pytest

from application.ports.upstream import SessionCredentials
from domain.errors import UpstreamBroken, UpstreamUnreachable
from tests.adapters.upstream.line import CONTENT, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, reply

ILLEGAL = [
    (b"/stored file?name=a b", "/stored%20file?name=a%20b"),
    ("/café?q=é".encode(), "/caf%C3%A9?q=%C3%A9"),
    (b"/caf\xe9", "/caf%E9"),
    (b"/a\tb", "/a%09b"),
    (b'/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
    (b"/a%20b c?sig=a%2Fb%2f+c~", "/a%20b%20c?sig=a%2Fb%2f+c~"),
]


def redirect(location: bytes) -> Say:
    return Say(b"HTTP/1.1 307 Said\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(("location", "target"), ILLEGAL)
@pytest.mark.parametrize("absolute", [False, True])
@in_loop
async def test_illegal_characters_of_a_location_are_percent_encoded(
    location: bytes, target: str, *, absolute: bool
) -> None:
    async with line() as link:
        there = link.server.url.encode() + location if absolute else location
        link.server.script = lambda heard: redirect(there) if heard.target.startswith("/v2/") else reply(body=CONTENT)
        assert (await link.fetch())[1] == CONTENT
        assert link.requests[-1][1] == target


@pytest.mark.parametrize(("realm", "target"), ILLEGAL)
@pytest.mark.parametrize("absolute", [False, True])
@in_loop
async def test_illegal_characters_of_a_realm_are_percent_encoded(realm: bytes, target: str, *, absolute: bool) -> None:
    quoted = realm.replace(b"\\", b"\\\\").replace(b'"', b'\\"')

    async with line() as link:
        there = link.server.url.encode() + quoted if absolute else quoted

        def script(heard: Heard) -> Say:
            if not heard.target.startswith("/v2/"):
                return reply(body=b'{"token": "abc"}')
            if heard.header("Authorization"):
                return reply(body=CONTENT)
            challenge = b'WWW-Authenticate: Bearer realm="' + there + b'"\r\n'
            return Say(b"HTTP/1.1 401 Said\r\n" + challenge + b"Content-Length: 0\r\n\r\n")

        link.server.script = script
        assert (await link.fetch(credentials=SessionCredentials()))[1] == CONTENT
        (asked,) = [heard.target for heard in link.server.heard if not heard.target.startswith("/v2/")]
        assert asked.startswith(target)


@in_loop
async def test_a_host_with_non_ascii_characters_is_encoded_with_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(host if isinstance(host, str) else host.decode())
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async with line() as link:
        link.server.script = lambda _: redirect(f"http://bücher.test:{link.server.port}/x".encode())
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(UpstreamUnreachable):
            await link.fetch()
        assert asked == ["xn--bcher-kva.test"]


@pytest.mark.parametrize("host", [b"a b", b"a\\b", b"a\x7fb", b"\xff", b"a<b>"])
@in_loop
async def test_a_host_with_illegal_characters_is_refused(host: bytes) -> None:
    async with line() as link:
        link.server.script = lambda _: redirect(b"http://" + host + b"/x")
        with pytest.raises(UpstreamBroken):
            await link.fetch()
        assert len(link.requests) == 1
