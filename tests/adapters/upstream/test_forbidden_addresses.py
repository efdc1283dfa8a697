"""Upstreams that refer to a host whose name resolves to this machine or to a metadata service."""

import socket
from dataclasses import replace
from typing import Any

import pytest
from yarl import URL

from adapters.upstream.client import HttpRequest, open_clients
from adapters.upstream.connections import ProxyRules, SessionSettings
from adapters.upstream.request_limits import RequestLimits
from application.ports.upstream import ForwardedCredentials, RedirectTarget, SessionCredentials, UpstreamRequest
from domain.errors import UpstreamBroken, UpstreamFault
from domain.upstreams import Upstream
from tests.adapters.upstream.line import CONTENT, Parts, in_loop, no_authorities, parts, resources, upstream_at
from tests.adapters.upstream.relays import SocksProxy
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply
from tests.fakes.events import RecordingEventSink

FORBIDDEN = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",
]


class Names:
    """The addresses of the names in these tests. Other names are resolved as usual."""

    def __init__(self) -> None:
        self.meanings: dict[str, list[str]] = {"registry.test": ["127.0.0.1"]}
        self.looked_up: list[str] = []
        self._ask = socket.getaddrinfo

    def look_up(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        """In the place of socket.getaddrinfo."""
        self.looked_up.append(str(host))
        if host not in self.meanings:
            return self._ask(host, port, *args, **options)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.meanings[host]
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The upstream of these tests is `registry.test`, which the operator configured: that leads to loopback, and is
    allowed to.
    """
    known = Names()
    monkeypatch.setattr(socket, "getaddrinfo", known.look_up)
    return known


def upstream_of(server: WireServer, host: str = "registry.test") -> Upstream:
    return upstream_at(f"http://{host}:{server.port}")


def sending_to(location: str, rest: Say | None = None) -> Any:
    """Redirects every request under /v2/."""
    after = rest or reply(body=CONTENT)
    return lambda heard: reply(307, ("Location", location)) if heard.target.startswith("/v2/") else after


async def read(
    adapters: Parts,
    upstream: Upstream,
    credentials: ForwardedCredentials | SessionCredentials | None = None,
    *,
    head: bool = False,
) -> bytes:
    asked = UpstreamRequest(resources(upstream)["blob"], credentials or ForwardedCredentials(), head=head)
    async with adapters.registry.open(asked) as answer:
        return b"" if head else await answer.read(1000)


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("head", [False, True])
@in_loop
async def test_no_connection_is_opened_to_a_redirect_target_at_a_forbidden_address(
    names: Names, address: str, *, head: bool
) -> None:
    names.meanings["inside.test"] = [address]
    async with WireServer() as server, parts(0.5) as adapters:
        server.script = sending_to(f"http://inside.test:{server.port}/stored")
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_of(server), head=head)
        assert len(server.heard) == 1


@pytest.mark.parametrize("address", FORBIDDEN)
@in_loop
async def test_no_connection_is_opened_to_a_target_of_an_earlier_response_at_a_forbidden_address(
    names: Names, address: str
) -> None:
    names.meanings["inside.test"] = [address]
    async with WireServer(lambda _: reply(body=CONTENT)) as server, parts(0.5) as adapters:
        upstream = upstream_of(server)
        target = RedirectTarget(upstream, f"http://inside.test:{server.port}/stored")
        asked = UpstreamRequest(resources(upstream)["blob"], ForwardedCredentials(), target=target)
        async with adapters.registry.open(asked) as answer:
            assert (answer.target, await answer.read(1000)) == (None, CONTENT)
        assert "inside.test" in names.looked_up
        assert [heard.target.split("/")[1] for heard in server.heard] == ["v2"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"])
@in_loop
async def test_no_request_goes_to_a_forbidden_literal_of_a_redirect(names: Names, host: str) -> None:
    async with WireServer() as server, parts(0.5) as adapters:
        server.script = sending_to(f"http://{host}:{server.port}/stored")
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_of(server))
        assert len(server.heard) == 1


@in_loop
async def test_the_second_redirect_is_checked_too(names: Names) -> None:
    """Here the first target is a configured origin."""
    names.meanings["inside.test"] = ["127.0.0.1"]
    async with WireServer() as server, parts(0.5) as adapters:
        server.script = lambda heard: (
            reply(307, ("Location", "/again"))
            if heard.target.startswith("/v2/")
            else reply(307, ("Location", f"http://inside.test:{server.port}/stored"))
        )
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_of(server))
        assert [heard.target for heard in server.heard[1:]] == ["/again"]


@in_loop
async def test_no_connection_is_opened_to_a_token_server_at_a_forbidden_address(names: Names) -> None:
    """The realm is on the domain of the upstream, so it is trusted with credentials."""
    names.meanings["registry.example.com"] = names.meanings["auth.example.com"] = ["127.0.0.1"]
    async with WireServer() as server, parts(0.5) as adapters:
        realm = f'Bearer realm="http://auth.example.com:{server.port}/token"'
        server.script = lambda _: reply(401, ("WWW-Authenticate", realm))
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_of(server, "registry.example.com"), SessionCredentials())
        assert not [heard for heard in server.heard if heard.target.startswith("/token")]


@in_loop
async def test_no_connection_is_opened_to_a_search_redirect_at_a_forbidden_address(names: Names) -> None:
    names.meanings["inside.test"] = ["127.0.0.1"]
    async with WireServer() as server, parts(0.5) as adapters:
        server.script = lambda _: reply(307, ("Location", f"http://inside.test:{server.port}/stored"))
        upstream = replace(upstream_of(server), search_url=f"http://registry.test:{server.port}/v1/search")
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await adapters.search.search(upstream, "x", 5)
        assert len(server.heard) == 1


@in_loop
async def test_of_several_addresses_only_the_allowed_ones_are_tried(names: Names) -> None:
    names.meanings["inside.test"] = ["127.0.0.1", "::1", "169.254.169.254"]
    async with WireServer() as server, parts(0.5) as adapters:
        server.script = sending_to(f"http://inside.test:{server.port}/stored")
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_of(server))
        names.meanings["inside.test"] = ["127.0.0.1", "203.0.113.7"]
        server.script = sending_to(f"http://inside.test:{server.port}/stored")
        with pytest.raises(UpstreamFault):
            await read(adapters, upstream_of(server))
        assert all(heard.target.startswith("/v2/") for heard in server.heard)


@in_loop
async def test_dns_rebinding_does_not_reach_a_forbidden_address(names: Names) -> None:
    """The address of the connection itself is checked, whatever an earlier look-up returned."""
    names.meanings["inside.test"] = ["203.0.113.7"]
    async with WireServer() as server, parts(0.3) as adapters:
        server.script = sending_to(f"http://inside.test:{server.port}/stored")
        with pytest.raises(UpstreamFault):
            await read(adapters, upstream_of(server))
        names.meanings["inside.test"] = ["127.0.0.1"]
        server.script = sending_to(f"http://inside.test:{server.port + 1}/stored")  # another key in aiohttp's DNS cache
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_of(server))


@in_loop
async def test_a_pooled_connection_is_not_used_under_a_stricter_policy(names: Names) -> None:
    """Two upstreams with equal settings share connections. One is on loopback and may redirect to loopback."""
    names.meanings["inside.test"] = ["127.0.0.1"]
    async with WireServer() as server:
        here, far = upstream_at(server.url), upstream_of(server)
        named = upstream_at(f"http://inside.test:{server.port}")
        server.script = sending_to(f"http://inside.test:{server.port}/stored")
        way = (SessionSettings(5), RequestLimits())
        with no_authorities():
            async with open_clients(
                dict.fromkeys((here, far, named), way), ProxyRules(), "agent", RecordingEventSink()
            ) as clients:
                for upstream in (here, named):
                    async with clients[upstream].request(HttpRequest("GET", URL(f"{upstream.url}/v2/x"))) as response:
                        assert await response.read(100) == CONTENT
                with pytest.raises(UpstreamBroken, match="does not connect there"):
                    async with clients[far].request(HttpRequest("GET", URL(f"{far.url}/v2/x"))):
                        pass


@in_loop
async def test_a_realm_of_the_settings_may_have_any_address(names: Names) -> None:
    names.meanings["storage.test"] = names.meanings["auth.registry.test"] = ["127.0.0.1"]

    async with WireServer() as server, parts() as adapters:

        def script(heard: Heard) -> Say:
            if heard.target.startswith("/token"):
                return reply(body=b'{"token": "abc"}')
            if heard.target == "/stored":
                return reply(body=CONTENT)
            if heard.header("Authorization"):
                return reply(307, ("Location", f"http://storage.test:{server.port}/stored"))
            realm = f'Bearer realm="http://auth.registry.test:{server.port}/token"'
            return reply(401, ("WWW-Authenticate", realm))

        server.script = script
        realms = frozenset({"storage.test", f"auth.registry.test:{server.port}"})
        upstream = replace(upstream_of(server), realms=realms)
        assert await read(adapters, upstream, SessionCredentials()) == CONTENT


@in_loop
async def test_a_fallback_may_have_any_address(names: Names) -> None:
    names.meanings["other.test"] = ["127.0.0.1"]
    async with WireServer(lambda _: reply(503)) as first, WireServer(lambda _: reply(body=CONTENT)) as second:
        other = upstream_of(second, "other.test")
        upstream = replace(upstream_of(first), fallbacks=((other.url, other.origin),))
        async with parts() as adapters:
            assert await read(adapters, upstream) == CONTENT


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.7.8", "172.16.1.1", "fd12:3456::1"])
@in_loop
async def test_a_connection_to_a_private_address_is_tried(names: Names, address: str) -> None:
    """A registry on a local network has its storage there. The connection fails here, not the address policy."""
    names.meanings["storage.test"] = [address]
    async with WireServer() as server, parts(0.3) as adapters:
        server.script = sending_to(f"http://storage.test:{server.port}/stored")
        with pytest.raises(UpstreamFault) as failed:
            await read(adapters, upstream_of(server))
        assert "refused" not in failed.value.message


@in_loop
async def test_a_proxy_may_have_any_address(names: Names) -> None:
    """The proxy resolves the names, so the mirror cannot check their addresses."""
    async with WireServer() as server, SocksProxy() as proxy, parts(proxy=proxy.url()) as adapters:
        server.script = sending_to(f"http://other.test:{server.port}/stored")
        assert await read(adapters, upstream_of(server)) == CONTENT
        assert proxy.targets == [("registry.test", server.port), ("other.test", server.port)]
        assert "other.test" not in names.looked_up


@pytest.mark.parametrize("host", ["127.0.0.1", "100.100.100.200", "[64:ff9b::7f00:1]", "localhost"])
@in_loop
async def test_a_forbidden_literal_does_not_reach_an_http_proxy(names: Names, host: str) -> None:
    async with WireServer() as proxy, parts(proxies=ProxyRules(http=proxy.url)) as adapters:
        proxy.script = lambda _: reply(307, ("Location", f"http://{host}/latest"))
        with pytest.raises(UpstreamBroken, match="does not connect there"):
            await read(adapters, upstream_at("http://registry.test"))
        assert len(proxy.heard) == 1
