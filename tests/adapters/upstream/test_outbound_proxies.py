"""Requests through the tunnel of an HTTP proxy and through SOCKS."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import uvloop

from adapters.upstream.connections import ProxyRules
from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.errors import UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable
from tests.adapters.upstream.authority import Authority
from tests.adapters.upstream.line import CONTENT, Parts, in_loop, parts, resources, upstream_at
from tests.adapters.upstream.relays import Relay, SocksProxy, TunnelProxy
from tests.adapters.upstream.wire import Say, WireServer, reply

MIB = 1024 * 1024
LARGE = random.Random(2).randbytes(5 * MIB + 321)  # noqa: S311 - content, not a secret
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
RELAYS = pytest.mark.parametrize("relay", [TunnelProxy, SocksProxy], ids=["tunnel", "socks"])


async def read(adapters: Parts, url: str) -> bytes:
    async with adapters.registry.open(
        UpstreamRequest(resources(upstream_at(url))["blob"], ForwardedCredentials())
    ) as answer:
        return b"".join([piece async for piece in answer.pieces()])


def run(loop: Any, test: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test)


@LOOPS
@RELAYS
def test_a_large_body_comes_through_with_tls_inside(loop: Any, relay: type[Relay], tmp_path: Path) -> None:
    async def go() -> None:
        authority = Authority(tmp_path)
        async with (
            WireServer(lambda _: reply(body=LARGE), authority.context()) as server,
            relay() as proxy,
            parts(ca_file=authority.certificate, proxy=proxy.url()) as adapters,
        ):
            for _ in range(3):
                assert await read(adapters, server.url) == LARGE
            assert proxy.targets == [("127.0.0.1", server.port)]
            assert server.connections == 1

    run(loop, go())


@LOOPS
def test_a_large_body_comes_through_socks_without_tls(loop: Any) -> None:
    async def go() -> None:
        async with (
            WireServer(lambda _: reply(body=LARGE)) as server,
            SocksProxy() as proxy,
            parts(proxy=proxy.url()) as adapters,
        ):
            for _ in range(3):
                assert await read(adapters, server.url) == LARGE
            assert (len(proxy.targets), server.connections) == (1, 1)

    run(loop, go())


@LOOPS
def test_a_proxy_may_itself_be_reached_by_tls(loop: Any, tmp_path: Path) -> None:
    async def go() -> None:
        authority = Authority(tmp_path)
        async with (
            WireServer(lambda _: reply(body=LARGE), authority.context()) as server,
            TunnelProxy(tls=authority.context()) as proxy,
            parts(ca_file=authority.certificate, proxy=proxy.url(scheme="https")) as adapters,
        ):
            for _ in range(2):
                assert await read(adapters, server.url) == LARGE
            assert proxy.targets == [("127.0.0.1", server.port)]

    run(loop, go())


@RELAYS
@pytest.mark.parametrize("then", ["close", "hang"])
@in_loop
async def test_an_incomplete_body_behind_a_proxy_is_noticed(relay: type[Relay], then: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    begun = Say(reply(200, ("Content-Length", str(len(LARGE))), body=LARGE[: 3 * MIB]).data, then)
    async with (
        WireServer(lambda _: begun, authority.context()) as server,
        relay() as proxy,
        parts(0.5, ca_file=authority.certificate, proxy=proxy.url()) as adapters,
    ):
        with pytest.raises(UpstreamTimedOut if then == "hang" else UpstreamBroken):
            await read(adapters, server.url)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@in_loop
async def test_names_are_resolved_at_the_socks_proxy(scheme: str) -> None:
    async with (
        WireServer(lambda _: reply(body=CONTENT)) as server,
        SocksProxy() as proxy,
        parts(proxy=proxy.url(scheme=scheme)) as adapters,
    ):
        assert await read(adapters, f"http://registry.test:{server.port}") == CONTENT
        assert proxy.targets == [("registry.test", server.port)]
        assert server.heard[0].header("Host") == f"registry.test:{server.port}"


@in_loop
async def test_a_login_goes_to_the_socks_proxy_unescaped() -> None:
    async with (
        WireServer(lambda _: reply(body=CONTENT)) as server,
        SocksProxy("user@x:pass/word") as proxy,
        parts(proxy=proxy.url("user%40x:pass%2Fword")) as adapters,
    ):
        assert await read(adapters, server.url) == CONTENT
        assert proxy.logins == ["user@x:pass/word"]
        assert server.heard[0].header("Authorization") is None


@pytest.mark.parametrize("login", ["", "user:wrong"])
@in_loop
async def test_a_socks_proxy_that_rejects_the_login_is_reported(login: str) -> None:
    async with WireServer() as server, SocksProxy("user:right") as proxy, parts(proxy=proxy.url(login)) as adapters:
        with pytest.raises(UpstreamUnreachable, match="the proxy did not open") as caught:
            await read(adapters, server.url)
        assert "wrong" not in caught.value.message
        assert server.connections == 0


@in_loop
async def test_a_socks_proxy_that_cannot_connect_is_reported() -> None:
    async with SocksProxy() as proxy, parts(proxy=proxy.url()) as adapters:
        proxy.refuses = True
        with pytest.raises(UpstreamUnreachable, match="the proxy did not open"):
            await read(adapters, "http://registry.test")


@in_loop
async def test_a_proxy_that_is_unreachable_or_hangs_up_is_reported() -> None:
    async with SocksProxy() as gone:
        pass
    async with parts(proxy=gone.url()) as adapters:
        with pytest.raises(UpstreamUnreachable):
            await read(adapters, "http://registry.test")
    async with (
        WireServer(lambda _: Say(then="close")) as silent,
        parts(0.5, proxy=f"socks5://127.0.0.1:{silent.port}") as adapters,
    ):
        with pytest.raises((UpstreamUnreachable, UpstreamTimedOut)):
            await read(adapters, "http://registry.test")


@in_loop
async def test_a_tunnel_that_requires_a_login_is_reported() -> None:
    async with TunnelProxy("Basic dXNlcjpwYXNz") as proxy, parts(proxy=proxy.url("user:wrong")) as adapters:
        with pytest.raises(UpstreamUnreachable, match="the proxy did not open"):
            await read(adapters, "https://registry.test")
        assert len(proxy.logins) == 1


@RELAYS
@in_loop
async def test_an_untrusted_certificate_behind_a_proxy_is_reported_as_such(relay: type[Relay], tmp_path: Path) -> None:
    async with (
        WireServer(lambda _: reply(body=CONTENT), Authority(tmp_path).context()) as server,
        relay() as proxy,
        parts(proxy=proxy.url()) as adapters,
    ):
        with pytest.raises(UpstreamUnreachable, match="UPSTREAM_CA"):
            await read(adapters, server.url)
        assert server.heard == []


@in_loop
async def test_the_proxy_of_the_upstream_overrides_the_environment() -> None:
    async with (
        WireServer(lambda _: reply(body=CONTENT)) as server,
        SocksProxy() as own,
        SocksProxy() as shared,
    ):
        rules = ProxyRules(shared.url(), shared.url(), "127.0.0.1")
        async with parts(proxies=rules, proxy=own.url()) as adapters:
            assert await read(adapters, server.url) == CONTENT
        assert (len(own.targets), shared.targets) == (1, [])


@in_loop
async def test_the_environment_may_name_a_socks_proxy_for_one_scheme() -> None:
    async with (
        WireServer(lambda _: reply(body=CONTENT)) as server,
        SocksProxy() as proxy,
        parts(proxies=ProxyRules(http=proxy.url(), bypass="127.0.0.1")) as adapters,
    ):
        assert await read(adapters, server.url) == CONTENT
        assert proxy.targets == []
        assert await read(adapters, f"http://other.test:{server.port}") == CONTENT
        assert proxy.targets == [("other.test", server.port)]


@in_loop
async def test_a_link_local_literal_is_not_sent_to_the_socks_proxy() -> None:
    async with (
        WireServer(lambda _: reply(307, ("Location", "http://169.254.169.254/latest"))) as server,
        SocksProxy() as proxy,
        parts(proxy=proxy.url()) as adapters,
    ):
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, server.url)
        assert proxy.targets == [("127.0.0.1", server.port)]
