"""A request that the mirror cannot build or send does not count as a failure of the upstream."""

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
async def test_an_illegal_header_does_not_mark_an_endpoint_as_failed(field: str, bad: str) -> None:
    async with pair(gives) as both:
        asked: dict[str, Any] = (
            {"credentials": ForwardedCredentials(f"Bearer a{bad}b")}
            if field == "authorization"
            else {"accept": ("a/b", f"x{bad}y")}
        )
        with pytest.raises(MirrorFault):
            await both.fetch(**asked)
        assert (both.request_counts, both.endpoint_events) == ((0, 0), [])
        assert await both.fetch() == CONTENT
        assert both.request_counts == (1, 0)


@in_loop
async def test_headers_are_checked_before_a_connection_is_opened() -> None:
    """Otherwise the error would be an outage if the upstream is down too."""
    async with pair(gives) as both:
        both.upstream = replace(both.upstream, url="http://127.0.0.1:9", fallbacks=())
        with pytest.raises(MirrorFault):
            await both.fetch(ForwardedCredentials("Bearer a\nb"))


@in_loop
async def test_a_request_that_was_not_sent_does_not_mark_an_endpoint_as_working() -> None:
    async with pair(lambda _: reply(503)) as both:
        await both.fetch()
        before = list(both.endpoint_events)
        with pytest.raises(MirrorFault):
            await both.fetch(ForwardedCredentials("Bearer a\nb"))
        assert both.endpoint_events == before == [("EndpointFailed", both.first.url)]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Sets the limit of file descriptors to the number of open ones."""
    probe = os.open(os.devnull, os.O_RDONLY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@in_loop
async def test_missing_file_descriptors_do_not_mark_an_endpoint_as_failed() -> None:
    async with pair(gives) as both:
        with no_descriptor_left(), pytest.raises(MirrorFault, match="Too many open files"):
            await both.fetch()
        assert (both.request_counts, both.endpoint_events) == ((0, 0), [])
        assert await both.fetch() == CONTENT
        assert both.request_counts == (1, 0)


@in_loop
async def test_missing_file_descriptors_in_a_name_look_up_do_not_either(
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
async def test_an_invalid_host_from_the_upstream_is_an_upstream_fault(host: str) -> None:
    async with line(lambda _: reply(307, ("Location", f"http://{host}/x"))) as link:
        with pytest.raises(UpstreamBroken):
            await link.fetch()
        link.server.script = lambda _: reply(401, ("WWW-Authenticate", f'Bearer realm="http://{host}/token"'))
        with pytest.raises((UpstreamBroken, RealmNotTrusted)):
            await link.fetch(credentials=SessionCredentials())


@in_loop
async def test_an_invalid_service_from_the_upstream_is_an_upstream_fault() -> None:
    async with line() as link:
        challenge = f'HTTP/1.1 401 Said\r\nWWW-Authenticate: Bearer realm="{link.server.url}/token",service="'.encode()
        said = challenge + b'\xff"\r\nContent-Length: 0\r\n\r\n'
        link.server.script = lambda _: replace(reply(), data=said)
        with pytest.raises(UpstreamBroken):
            await link.fetch(credentials=SessionCredentials())
