"""Which requests go through a forward proxy."""

import pytest
from yarl import URL

from adapters.upstream.client import HttpRequest
from adapters.upstream.connections import ProxyRules
from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.errors import UpstreamFault, UpstreamUnreachable
from tests.adapters.upstream.line import CONTENT, in_loop, line, parts, resources, upstream_at
from tests.adapters.upstream.wire import WireServer, reply

HTTP, HTTPS = "http://proxy.test:3128", "http://secure-proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [("http://registry.test/v2/", HTTP), ("https://registry.test/v2/", HTTPS), ("https://10.0.0.1:5000/", HTTPS)],
)
def test_scheme_of_the_address_chooses_the_proxy(url: str, proxy: str) -> None:
    assert ProxyRules(HTTP, HTTPS).proxy_for(URL(url)) == proxy


def test_without_a_proxy_every_connection_is_direct() -> None:
    assert ProxyRules().proxy_for(URL("https://registry.test/")) is None
    assert ProxyRules(http=HTTP).proxy_for(URL("https://registry.test/")) is None
    assert ProxyRules(https=HTTPS).proxy_for(URL("http://registry.test/")) is None


@pytest.mark.parametrize(
    ("bypass", "url", "direct"),
    [
        ("registry.test", "https://registry.test/", True),
        ("registry.test", "https://a.registry.test/", True),
        (".registry.test", "https://a.registry.test/", True),
        ("registry.test", "https://otherregistry.test/", False),
        ("registry.test:5000", "https://registry.test:5000/", True),
        ("registry.test:5000", "https://registry.test/", False),
        ("REGISTRY.test", "https://registry.TEST/", True),
        (" a.test , registry.test ", "https://registry.test/", True),
        ("*", "https://registry.test/", True),
        ("10.0.0.1", "https://10.0.0.1:5000/", True),
        ("10.0.0.1", "https://10.0.0.10/", False),
        ("a.test,,b.test", "https://registry.test/", False),
        ("", "https://registry.test/", False),
    ],
)
def test_no_proxy_follows_the_usual_rules(bypass: str, url: str, *, direct: bool) -> None:
    assert (ProxyRules(HTTP, HTTPS, bypass).proxy_for(URL(url)) is None) is direct


@in_loop
async def test_forward_proxy_gets_the_whole_address() -> None:
    async with (
        WireServer(lambda _: reply(body=CONTENT)) as proxy,
        parts(proxies=ProxyRules(http=proxy.url)) as adapters,
    ):
        upstream = upstream_at("http://registry.test:5000")
        async with adapters.registry.open(
            UpstreamRequest(resources(upstream)["manifest"], ForwardedCredentials("Bearer abc"))
        ) as answer:
            assert await answer.read(100) == CONTENT
        (heard,) = proxy.heard
        assert (heard.method, heard.target) == ("GET", "http://registry.test:5000/v2/some/app/manifests/1")
        assert (heard.header("Host"), heard.header("Authorization")) == ("registry.test:5000", "Bearer abc")


@in_loop
async def test_https_goes_through_a_tunnel() -> None:
    async with WireServer(lambda _: reply(403)) as proxy, parts(proxies=ProxyRules(https=proxy.url)) as adapters:
        with pytest.raises(UpstreamFault):
            await adapters.registry.ping(upstream_at("https://registry.test"), ForwardedCredentials("Bearer abc"))
        assert [(heard.method, heard.target) for heard in proxy.heard] == [("CONNECT", "registry.test:443")]
        assert proxy.heard[0].header("Authorization") is None


@in_loop
async def test_the_login_of_the_proxy_goes_to_the_proxy_only() -> None:
    async with WireServer(lambda _: reply(body=b"{}")) as proxy:
        address = proxy.url.replace("http://", "http://user:pass@")
        upstream, request = upstream_at("http://registry.test"), HttpRequest("GET", URL("http://registry.test/x"))
        async with (
            parts(proxies=ProxyRules(http=address)) as adapters,
            adapters.clients[upstream].request(request),
        ):
            pass
        assert proxy.heard[0].header("Proxy-Authorization") == "Basic dXNlcjpwYXNz"
        assert proxy.heard[0].header("Authorization") is None


@in_loop
async def test_bypassed_host_is_reached_directly() -> None:
    async with WireServer() as proxy:
        rules = ProxyRules(http=proxy.url, bypass="127.0.0.1")
        async with line(lambda _: reply(body=CONTENT), proxies=rules) as link:
            assert (await link.fetch())[1] == CONTENT
        assert proxy.connections == 0


@in_loop
async def test_each_redirect_chooses_its_own_proxy() -> None:
    async with WireServer(lambda _: reply(body=CONTENT)) as proxy:
        rules = ProxyRules(http=proxy.url, bypass="127.0.0.1")
        async with line(lambda _: reply(307, ("Location", "http://cdn.test/x")), proxies=rules) as link:
            assert (await link.fetch())[1] == CONTENT
        assert [heard.target for heard in proxy.heard] == ["http://cdn.test/x"]


@in_loop
async def test_an_unreachable_proxy_is_reported() -> None:
    async with WireServer() as gone:
        url = gone.url
    async with parts(proxies=ProxyRules(http=url)) as adapters:
        with pytest.raises(UpstreamUnreachable):
            await adapters.registry.ping(upstream_at("http://registry.test"), ForwardedCredentials())


@in_loop
async def test_the_adapter_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with WireServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with line(lambda _: reply(body=CONTENT)) as link:
            assert (await link.fetch())[1] == CONTENT
        assert proxy.connections == 0
