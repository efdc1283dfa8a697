"""Upstreams that do not answer a HEAD correctly: the mirror sends a GET instead."""

import pytest

from application.ports.upstream import ForwardedCredentials, Resource, UpstreamRequest
from domain.digest import Digest
from domain.errors import UpstreamBroken, UpstreamFault
from domain.upstreams import Source
from tests.adapters.upstream.line import CONTENT, NAME, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, reply, whole

TYPE = ("Content-Type", "application/vnd.oci.image.manifest.v1+json")
LARGE = 1 << 30
BROKEN = {
    "length 0": reply(200, TYPE, ("Content-Length", "0")),
    "closed": Say(then="close"),
    "reset": Say(then="reset"),
    "half a head": Say(b"HTTP/1.1 200 OK\r\nContent-", then="close"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("kind", ["manifest", "blob"])
@in_loop
async def test_a_head_without_a_usable_response_is_repeated_as_a_get(kind: str, fault: str) -> None:
    async with line(lambda heard: BROKEN[fault] if heard.method == "HEAD" else whole(heard, CONTENT, TYPE)) as link:
        metadata, _ = await link.fetch(kind, head=True)
        assert (metadata.size, metadata.span, metadata.media_type) == (len(CONTENT), None, TYPE[1])
        assert link.server.heard[-1].method == "GET"


@pytest.mark.parametrize("fault", BROKEN)
@in_loop
async def test_the_get_requests_one_byte(fault: str) -> None:
    def script(heard: Heard) -> Say:
        if heard.method == "HEAD":
            return BROKEN[fault]
        assert heard.header("Range") == "bytes=0-0"
        return reply(206, ("Content-Range", f"bytes 0-0/{LARGE}"), body=CONTENT[:1])

    async with line(script) as link:
        metadata, _ = await link.fetch(head=True)
        assert (metadata.size, metadata.span) == (LARGE, None)


@in_loop
async def test_a_large_body_of_the_get_is_not_read() -> None:
    """The body never ends."""

    def script(heard: Heard) -> Say:
        if heard.method == "HEAD":
            return BROKEN["length 0"]
        return reply(200, ("Content-Length", str(LARGE)), body=CONTENT, then="hang")

    async with line(script) as link:
        metadata, _ = await link.fetch(head=True)
        assert metadata.size == LARGE
        await link.fetch(head=True)
        assert link.server.connections > 1, "the connection with the unread body is not used again"


@in_loop
async def test_a_length_of_0_is_an_error() -> None:
    async with line(lambda _: reply(200, TYPE, ("Content-Length", "0"))) as link:
        for kind in ("manifest", "blob"):
            with pytest.raises(UpstreamBroken, match="empty"):
                await link.fetch(kind, head=True)


@in_loop
async def test_the_empty_blob_is_empty() -> None:
    async with line(lambda _: reply(200, ("Content-Length", "0"))) as link:
        empty = Resource.blob(Source(link.upstream, NAME), Digest.of(b""))
        async with link.parts.registry.open(UpstreamRequest(empty, ForwardedCredentials(), head=True)) as answer:
            assert answer.metadata.size == 0
        assert [heard.method for heard in link.server.heard] == ["HEAD"]


@pytest.mark.parametrize("then", ["close", "reset"])
@in_loop
async def test_a_server_that_answers_neither_head_nor_get_is_an_error(then: str) -> None:
    async with line(lambda _: Say(then=then)) as link:
        with pytest.raises(UpstreamFault):
            await link.fetch(head=True)
        assert len(link.server.heard) <= 4, "each method once, and once more on a new connection"
