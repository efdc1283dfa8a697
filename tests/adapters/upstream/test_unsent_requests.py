"""Requests that the mirror itself cannot build or send say nothing about the upstream."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.errors import MirrorFault, RealmNotTrusted, UpstreamBroken
from tests.adapters.upstream.line import CONTENT, in_loop, line
from tests.adapters.upstream.pair import gives, pair
from tests.adapters.upstream.wire import reply

ILLEGAL = ["\n", "\r", "\x00", "\x01", "\x0b", "\x1f", "\x7f", "\udcff"]


@pytest.mark.parametrize("bad", ILLEGAL)
@pytest.mark.parametrize("field", ["authorization", "accept"])
@in_loop
async def test_a_field_that_cannot_be_sent_marks_no_address_as_failed(field: str, bad: str) -> None:
    async with pair(gives) as both:
        asked: dict[str, Any] = (
            {"right": ForwardedCredentials(f"Bearer a{bad}b")}
            if field == "authorization"
            else {"accept": ("a/b", f"x{bad}y")}
        )
        with pytest.raises(MirrorFault):
            await both.fetch(**asked)
        assert (both.asked, both.told) == ((0, 0), [])
        assert await both.fetch() == CONTENT
        assert both.asked == (1, 0)


@in_loop
async def test_a_field_is_looked_at_before_a_connection_is_made() -> None:
    """Else it would be an outage wherever the upstream is down, too."""
    async with pair(gives) as both:
        both.upstream = replace(both.upstream, url="http://127.0.0.1:9", fallbacks=())
        with pytest.raises(MirrorFault):
            await both.fetch(ForwardedCredentials("Bearer a\nb"))


@in_loop
async def test_a_request_that_was_not_sent_does_not_call_a_failed_address_well() -> None:
    async with pair(lambda _: reply(503)) as both:
        await both.fetch()
        before = list(both.told)
        with pytest.raises(MirrorFault):
            await both.fetch(ForwardedCredentials("Bearer a\nb"))
        assert both.told == before == [("EndpointFailed", both.first.url)]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As many may be open as are open."""
    probe = os.open(os.devnull, os.O_RDONLY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@in_loop
async def test_running_out_of_descriptors_marks_no_address_as_failed() -> None:
    async with pair(gives) as both:
        with no_descriptor_left(), pytest.raises(MirrorFault, match="Too many open files"):
            await both.fetch()
        assert (both.asked, both.told) == ((0, 0), [])
        assert await both.fetch() == CONTENT
        assert both.asked == (1, 0)


@in_loop
async def test_running_out_of_descriptors_while_a_name_is_looked_up_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    async with pair(gives) as both:
        both.upstream = replace(both.upstream, url="http://registry.test", fallbacks=())
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(MirrorFault, match="Too many open files"):
            await both.fetch()


@pytest.mark.parametrize("host", ["x" * 64 + ".test", "a..b", "127.1"])
@in_loop
async def test_a_host_of_the_upstreams_that_is_no_name_is_its_own_fault(host: str) -> None:
    async with line(lambda _: reply(307, ("Location", f"http://{host}/x"))) as link:
        with pytest.raises(UpstreamBroken):
            await link.fetch()
        link.server.script = lambda _: reply(401, ("WWW-Authenticate", f'Bearer realm="http://{host}/token"'))
        with pytest.raises((UpstreamBroken, RealmNotTrusted)):
            await link.fetch(right=SessionCredentials())


@in_loop
async def test_a_service_name_of_the_upstreams_that_cannot_be_sent_is_its_own_fault() -> None:
    async with line() as link:
        challenge = f'HTTP/1.1 401 Said\r\nWWW-Authenticate: Bearer realm="{link.server.url}/token",service="'.encode()
        said = challenge + b'\xff"\r\nContent-Length: 0\r\n\r\n'
        link.server.script = lambda _: replace(reply(), data=said)
        with pytest.raises(UpstreamBroken):
            await link.fetch(right=SessionCredentials())
