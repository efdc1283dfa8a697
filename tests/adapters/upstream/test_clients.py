"""Each upstream has its own client."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from yarl import URL

from adapters.upstream.client import HttpRequest, open_clients
from adapters.upstream.connections import ProxyRules, SessionSettings
from adapters.upstream.request_limits import RequestLimits
from domain.upstreams import Upstream
from tests.adapters.upstream.line import in_loop, no_authorities, upstream_at
from tests.adapters.upstream.wire import WireServer, reply
from tests.fakes.events import RecordingEventSink

FIRST, SECOND, THIRD = (upstream_at(f"http://{name}.test") for name in ("first", "second", "third"))
WAY = (SessionSettings(5), RequestLimits())
OTHER = (SessionSettings(6), RequestLimits())


def hint(upstream: Upstream, server: WireServer) -> Upstream:
    """The upstream, whose realms allow this server on loopback."""
    return replace(upstream, realms=frozenset({f"127.0.0.1:{server.port}"}))


def with_fallback(upstream: Upstream, other: Upstream) -> Upstream:
    return replace(upstream, fallbacks=((other.url, other.origin),))


@in_loop
async def test_each_upstream_has_its_own_client_and_shares_it_with_its_endpoints() -> None:
    first = with_fallback(FIRST, THIRD)
    with no_authorities():
        async with open_clients({first: WAY, SECOND: WAY}, ProxyRules(), "agent", RecordingEventSink()) as clients:
            assert clients[first] is not clients[SECOND]
            assert [clients[endpoint] for endpoint in first.endpoints] == [clients[first]] * 2
            with pytest.raises(KeyError):
                clients[upstream_at("http://stranger.test")]


@in_loop
async def test_an_upstream_that_is_also_a_fallback_keeps_its_own_client() -> None:
    first = with_fallback(FIRST, SECOND)
    for order in ((first, SECOND), (SECOND, first)):
        with no_authorities():
            async with open_clients(dict.fromkeys(order, WAY), ProxyRules(), "agent", RecordingEventSink()) as clients:
                assert clients[SECOND] is clients[upstream_at(SECOND.url)]
                assert clients[SECOND] is not clients[first]


@pytest.mark.parametrize(("way", "connections"), [(WAY, 1), (OTHER, 2)])
@in_loop
async def test_only_upstreams_with_equal_settings_share_connections(
    way: tuple[SessionSettings, RequestLimits], connections: int
) -> None:
    async with WireServer(lambda _: reply(body=b"x")) as server:
        first, second = hint(FIRST, server), hint(SECOND, server)
        with no_authorities():
            async with open_clients({first: WAY, second: way}, ProxyRules(), "agent", RecordingEventSink()) as clients:
                for upstream in (first, second, first):
                    async with clients[upstream].request(HttpRequest("GET", URL(server.url))) as response:
                        await response.read(10)
        assert server.connections == connections


@in_loop
async def test_upstreams_with_equal_settings_have_separate_limits() -> None:
    bounded = (WAY[0], RequestLimits(max_connections=1))
    async with WireServer(lambda _: reply(body=b"x")) as server:
        first, second = hint(FIRST, server), hint(SECOND, server)
        with no_authorities():
            async with open_clients(
                {first: bounded, second: bounded}, ProxyRules(), "agent", RecordingEventSink()
            ) as clients:
                request = HttpRequest("GET", URL(server.url))
                async with asyncio.timeout(5), clients[first].request(request), clients[second].request(request):
                    assert len(server.heard) == 2


@in_loop
async def test_sessions_are_closed_if_a_later_one_cannot_be_opened(tmp_path: Path) -> None:
    missing = (SessionSettings(ca_file=tmp_path / "none.pem"), RequestLimits())
    with no_authorities(), pytest.raises(FileNotFoundError):
        async with open_clients({FIRST: WAY, SECOND: missing}, ProxyRules(), "agent", RecordingEventSink()):
            pass
