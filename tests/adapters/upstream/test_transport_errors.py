"""Connections that fail before or during a response."""

import pytest
from yarl import URL

from adapters.upstream.client import HttpRequest
from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.errors import RegistryError, UpstreamBroken, UpstreamFault, UpstreamTimedOut, UpstreamUnreachable
from tests.adapters.upstream.line import CONTENT, Line, in_loop, line, parts, resources, upstream_at
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply, whole

CHUNKED = ("Transfer-Encoding", "chunked")


async def read(link: Line) -> tuple[bytes, RegistryError | None]:
    """The received bytes of the blob, and the error at its end."""
    got = bytearray()
    try:
        async with link.parts.registry.open(
            UpstreamRequest(resources(link.upstream)["blob"], ForwardedCredentials())
        ) as answer:
            async for piece in answer.pieces():
                got += piece
    except RegistryError as error:
        return bytes(got), error
    return bytes(got), None


@in_loop
async def test_silence_before_the_headers_is_a_timeout() -> None:
    async with line(lambda _: Say(then="hang"), read_timeout=0.3) as link:
        for ask in (link.fetch(), link.ping(), link.fetch("manifest", head=True)):
            with pytest.raises(UpstreamTimedOut):
                await ask


@in_loop
async def test_headers_that_never_end_are_a_timeout() -> None:
    async with line(lambda _: Say(b"HTTP/1.1 200 OK\r\nContent-", then="hang"), read_timeout=0.3) as link:
        with pytest.raises(UpstreamTimedOut):
            await link.fetch()


@in_loop
async def test_server_that_is_not_there_is_unreachable() -> None:
    async with WireServer() as gone:
        url = gone.url
    async with parts() as adapters:
        with pytest.raises(UpstreamUnreachable):
            await adapters.registry.ping(upstream_at(url), ForwardedCredentials())


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
@in_loop
async def test_a_connection_that_is_lost_before_the_headers_is_an_error(then: str, data: bytes) -> None:
    async with line(lambda _: Say(data, then)) as link:
        with pytest.raises(UpstreamFault):
            await link.fetch()
        assert len(link.requests) <= 2


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("head", [True, False])
@in_loop
async def test_a_request_is_repeated_if_an_idle_connection_was_closed(*, then: str, head: bool) -> None:
    def script(heard: Heard) -> Say:
        return whole(heard, CONTENT) if heard.turn == 0 else Say(then=then)

    async with line(script) as link:
        for _ in range(3):
            await link.fetch(head=head)
        assert [(heard.connection, heard.turn) for heard in link.server.heard] == [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
            (2, 0),
        ]


@in_loop
async def test_a_server_that_always_hangs_up_is_an_error() -> None:
    async with line(
        lambda heard: reply(body=CONTENT) if not heard.connection + heard.turn else Say(then="close")
    ) as link:
        await link.fetch()
        with pytest.raises(UpstreamFault):
            await link.fetch()
        assert len(link.requests) <= 4


@pytest.mark.parametrize(
    "said",
    [
        reply(200, ("Content-Length", "100"), body=CONTENT, then="close"),
        reply(200, ("Content-Length", "100"), body=CONTENT, then="reset"),
        reply(200, CHUNKED, body=b"14\r\n" + CONTENT + b"\r\n", then="close"),
        reply(200, CHUNKED, body=b"64\r\n" + CONTENT, then="close"),
        reply(200, CHUNKED, body=b"14\r\n" + CONTENT + b"\r\nnonsense\r\n", then="close"),
    ],
)
@in_loop
async def test_an_incomplete_body_is_an_error(said: Say) -> None:
    async with line(lambda _: said) as link:
        got, error = await read(link)
        assert CONTENT.startswith(got)
        assert isinstance(error, UpstreamFault)


@pytest.mark.parametrize(
    "said",
    [
        reply(200, ("Content-Length", "100"), body=CONTENT, then="hang"),
        reply(200, CHUNKED, body=b"14\r\n" + CONTENT + b"\r\n", then="hang"),
        reply(200, CHUNKED, body=b"64\r\n" + CONTENT, then="hang"),
    ],
)
@in_loop
async def test_silence_in_the_middle_is_a_timeout(said: Say) -> None:
    async with line(lambda _: said, read_timeout=0.3) as link:
        got, error = await read(link)
        assert got == CONTENT
        assert isinstance(error, UpstreamTimedOut)


@in_loop
async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with line(lambda _: Say(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT, "close")) as link:
        assert await read(link) == (CONTENT, None)


@in_loop
async def test_a_chunked_body_is_read() -> None:
    body = b"4\r\nsome\r\n10;x=y\r\n bytes of a blob\r\n0\r\n\r\n"
    async with line(lambda _: reply(200, CHUNKED, body=body)) as link:
        metadata, content = await link.fetch()
        assert (metadata.size, content) == (None, CONTENT)


@in_loop
async def test_an_endless_body_is_read_up_to_the_limit() -> None:
    """The body is chunked and never ends; the reader does not wait for its end."""
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    async with line(lambda _: reply(200, CHUNKED, body=chunk * 4, then="hang")) as link:
        opened = link.parts.registry.open(UpstreamRequest(resources(link.upstream)["manifest"], ForwardedCredentials()))
        async with opened as answer:
            with pytest.raises(UpstreamBroken):
                await answer.read(100_000)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n"]
)
@in_loop
async def test_a_server_of_another_protocol_is_an_error(data: bytes) -> None:
    async with line(lambda _: Say(data, "close")) as link:
        with pytest.raises(UpstreamFault):
            await link.fetch()


@pytest.mark.parametrize("length", ["-1", "many", "1, 2", "0x10"])
@in_loop
async def test_an_invalid_length_is_an_error(length: str) -> None:
    async with line(lambda _: reply(200, ("Content-Length", length), body=CONTENT, then="close")) as link:
        with pytest.raises(UpstreamFault):
            await link.fetch()


@pytest.mark.parametrize("name", ["Location", "X-Long", "WWW-Authenticate"])
@in_loop
async def test_header_of_twenty_kilobytes_is_read(name: str) -> None:
    async with line(lambda _: reply(200, (name, "x" * 20_000), body=CONTENT)) as link:
        assert (await link.fetch())[1] == CONTENT


@in_loop
async def test_header_of_more_than_64_kibibytes_is_refused() -> None:
    async with line(lambda _: reply(200, ("X-Long", "x" * 66_000), body=CONTENT)) as link:
        with pytest.raises(UpstreamBroken):
            await link.fetch()


@in_loop
async def test_early_hints_are_not_the_response() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    async with line(lambda _: Say(hints + reply(body=CONTENT).data)) as link:
        assert (await link.fetch())[1] == CONTENT


@pytest.mark.parametrize("then", ["close", "hang", "reset"])
@in_loop
async def test_no_message_contains_a_signed_address(then: str) -> None:
    async with line(lambda _: Say(then=then), read_timeout=0.3) as link:
        signed = URL(f"{link.server.url}/blob?X-Amz-Signature=verysecret", encoded=True)
        with pytest.raises(UpstreamFault, match=r"127\.0\.0\.1") as failed:
            async with link.parts.clients[link.upstream].request(
                HttpRequest("GET", signed, authorization="Basic verysecret")
            ):
                pass
        assert "verysecret" not in failed.value.message


@in_loop
async def test_a_connection_is_reused_after_a_complete_response() -> None:
    async with line(lambda _: reply(body=CONTENT)) as link:
        for _ in range(3):
            await link.fetch()
        assert link.server.connections == 1


@in_loop
async def test_a_response_that_is_left_early_occupies_no_connection() -> None:
    async with line(lambda _: reply(200, ("Content-Length", "9999"), body=CONTENT, then="hang")) as link:
        for _ in range(3):
            async with link.parts.registry.open(
                UpstreamRequest(resources(link.upstream)["blob"], ForwardedCredentials())
            ):
                pass
        assert link.server.connections == 3
