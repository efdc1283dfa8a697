"""The mirror follows redirects. Credentials go only to the origin for which they were sent."""

import asyncio
from pathlib import Path

import pytest
from yarl import URL

from adapters.upstream.client import HttpRequest
from application.ports.upstream import ForwardedCredentials
from domain.errors import BlobUnknown, Denied, UpstreamBroken, UpstreamFault
from tests.adapters.upstream.authority import Authority
from tests.adapters.upstream.line import CONTENT, Line, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, Script, WireServer, reply

ALICE = ForwardedCredentials("Basic YWxpY2U6cmlnaHQ=")
METADATA = "169.254.169.254"


def to(location: str, status: int = 307, body: bytes = b"") -> Say:
    return reply(status, ("Location", location), body=body)


def first(said: Say, rest: Say | None = None) -> Script:
    """Answers with `said` under /v2/, and with `rest` elsewhere."""
    after = rest or reply(body=CONTENT)
    return lambda heard: said if heard.target.startswith("/v2/") else after


def sent_authorization(server: WireServer) -> list[str | None]:
    return [heard.header("Authorization") for heard in server.heard]


async def get(link: Line, url: str) -> bytes:
    """The body at exactly this URL."""
    async with link.parts.clients[link.upstream].request(HttpRequest("GET", URL(url, encoded=True))) as response:
        return await response.read(1000)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("head", [False, True])
@in_loop
async def test_every_kind_of_redirect_keeps_the_method(*, status: int, head: bool) -> None:
    async with line() as link:
        stored = reply(200, ("Content-Length", str(len(CONTENT))), body=b"" if head else CONTENT)
        link.server.script = first(to("/stored", status), stored)
        await link.fetch(head=head)
        assert [method for method, _ in link.requests] == ["HEAD" if head else "GET"] * 2
        assert link.requests[1][1] == "/stored"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/stored", "/stored"),
        ("stored", "/v2/some/app/blobs/stored"),
        ("../stored?x=1", "/v2/some/app/stored?x=1"),
        ("{url}/stored?x=1", "/stored?x=1"),
        ("//127.0.0.1:{port}/stored", "/stored"),
        ("/stored#piece", "/stored"),
    ],
)
@in_loop
async def test_location_may_be_relative_or_absolute(location: str, target: str) -> None:
    async with line() as link:
        there = location.format(url=link.server.url, port=link.server.port)
        link.server.script = lambda heard: reply(body=CONTENT) if heard.target == target else to(there)
        assert (await link.fetch())[1] == CONTENT
        assert link.requests[-1][1] == target


@pytest.mark.parametrize(
    "address",
    [
        "/a%2Fb%3Ac%7Ed?X-Amz-Credential=AK%2F2026%2Fs3&sig=a%2Bb%3D%3D&t=10%3A20%7E",
        "/a~b:c?x=~/:@,;+%20",
        "/a/%2e%2e/b/%2E?x=%2e%2e",
        "/a//b?x=1&&y=",
        "/caf%C3%A9?q=%C3%A9",
    ],
)
@in_loop
async def test_signed_address_is_passed_byte_for_byte(address: str) -> None:
    async with WireServer(lambda _: reply(body=CONTENT)) as storage, line() as link:
        link.server.script = lambda _: to(storage.url + address)
        await link.fetch()
        assert [heard.target for heard in storage.heard] == [address]


@in_loop
async def test_authorization_stays_on_the_same_server() -> None:
    async with line() as link:
        link.server.script = first(to(f"{link.server.url}/stored"))
        await link.fetch(credentials=ALICE)
        assert sent_authorization(link.server) == [ALICE.raw, ALICE.raw]


@in_loop
async def test_authorization_is_not_sent_to_another_port() -> None:
    async with WireServer(lambda _: reply(body=CONTENT)) as storage, line() as link:
        link.server.script = lambda _: to(f"{storage.url}/stored")
        assert (await link.fetch(credentials=ALICE))[1] == CONTENT
        assert sent_authorization(link.server) == [ALICE.raw]
        assert sent_authorization(storage) == [None]


@in_loop
async def test_authorization_that_was_dropped_never_returns() -> None:
    async with WireServer() as storage, line() as link:
        storage.script = lambda _: to(f"{link.server.url}/back")
        link.server.script = first(to(f"{storage.url}/away"))
        await link.fetch(credentials=ALICE)
        assert sent_authorization(link.server) == [ALICE.raw, None]
        assert sent_authorization(storage) == [None]


@in_loop
async def test_another_name_of_the_same_machine_is_another_server() -> None:
    async with line() as link:
        link.server.script = first(to(f"http://localhost:{link.server.port}/stored"))
        await link.fetch(credentials=ALICE)
        assert sent_authorization(link.server) == [ALICE.raw, None]


@in_loop
async def test_range_and_accept_are_sent_after_a_redirect() -> None:
    async with WireServer(lambda _: reply(body=CONTENT)) as storage, line() as link:
        link.server.script = lambda _: to(f"{storage.url}/stored")
        await link.fetch("manifest", accept=("a/b", "c/d"))
        assert storage.heard[0].lines("Accept") == ["a/b", "c/d"]
        assert storage.heard[0].lines("Accept-Encoding") == ["identity"]


@pytest.mark.parametrize("location", ["/v2/some/app/blobs/again", "{url}/v2/"])
@in_loop
async def test_endless_redirects_are_an_error(location: str) -> None:
    async with line() as link:
        link.server.script = lambda _: to(location.format(url=link.server.url))
        with pytest.raises(UpstreamBroken):
            await link.fetch()
        assert len(link.requests) <= 11


@pytest.mark.parametrize(
    "host",
    [
        METADATA,
        f"[::ffff:{METADATA}]",
        "2852039166",
        "0xa9fea9fe",
        "169.254.43518",
        "[fe80::1]",
        "0.0.0.0",
        "0",
        "[::]",
    ],
)
@in_loop
async def test_a_redirect_to_a_link_local_address_is_refused(host: str) -> None:
    async with line() as link:
        link.server.script = lambda _: to(f"http://{host}:{link.server.port}/latest/meta-data/")
        async with asyncio.timeout(5):
            with pytest.raises(UpstreamFault):
                await link.fetch()
        assert len(link.requests) == 1


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "http://[", "http://x:99999/"]
)
@in_loop
async def test_an_invalid_location_is_an_error(location: str) -> None:
    async with line(lambda _: to(location)) as link:
        with pytest.raises(UpstreamFault):
            await link.fetch()


@in_loop
async def test_a_redirect_without_a_location_is_an_error() -> None:
    async with line(lambda _: reply(302)) as link:
        with pytest.raises(UpstreamBroken):
            await link.fetch()


@pytest.mark.parametrize("status", [405, 501])
@in_loop
async def test_a_refused_head_is_repeated_as_a_get(status: int) -> None:
    def script(heard: Heard) -> Say:
        return reply(status) if heard.method == "HEAD" else reply(200, ("Content-Type", "a/b"), body=CONTENT)

    async with line(script) as link:
        metadata, _ = await link.fetch(head=True, credentials=ALICE)
        assert (metadata.size, metadata.media_type) == (len(CONTENT), "a/b")
        assert [method for method, _ in link.requests] == ["HEAD", "GET"]
        assert sent_authorization(link.server) == [ALICE.raw, ALICE.raw]


@pytest.mark.parametrize("status", [403, 405, 501])
@in_loop
async def test_a_head_that_storage_refuses_is_repeated_as_a_get(status: int) -> None:
    """A signed URL is valid for one method."""

    def script(heard: Heard) -> Say:
        return reply(status) if heard.method == "HEAD" else reply(body=CONTENT)

    async with WireServer(script) as storage, line() as link:
        link.server.script = lambda _: to(f"{storage.url}/stored?sig=get")
        assert (await link.fetch(head=True))[0].size == len(CONTENT)
        assert [(heard.method, heard.target) for heard in storage.heard] == [
            ("HEAD", "/stored?sig=get"),
            ("GET", "/stored?sig=get"),
        ]


@in_loop
async def test_a_head_that_the_registry_denies_is_denied() -> None:
    async with line(lambda _: reply(403)) as link:
        with pytest.raises(Denied):
            await link.fetch(head=True)
        assert len(link.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
@in_loop
async def test_a_refusal_by_storage_is_not_a_denial(status: int) -> None:
    challenge = ("WWW-Authenticate", 'Basic realm="storage"')
    async with WireServer(lambda _: reply(status, challenge)) as storage, line() as link:
        link.server.script = lambda _: to(f"{storage.url}/stored")
        with pytest.raises(UpstreamBroken):
            await link.fetch(credentials=ALICE)


@in_loop
async def test_blob_that_storage_lost_is_unknown() -> None:
    async with WireServer(lambda _: reply(404, body=b"<Error>NoSuchKey</Error>")) as storage, line() as link:
        link.server.script = lambda _: to(f"{storage.url}/stored")
        with pytest.raises(BlobUnknown):
            await link.fetch()


@in_loop
async def test_a_small_body_of_a_redirect_is_read_and_ignored() -> None:
    async with line() as link:
        link.server.script = first(to("/stored", body=b"<a href='elsewhere'>Temporary Redirect</a>"))
        for _ in range(2):
            assert (await link.fetch())[1] == CONTENT
        assert link.server.connections == 1


@in_loop
async def test_a_large_body_of_a_redirect_is_not_read() -> None:
    async with line() as link:
        endless = reply(307, ("Location", "/stored"), ("Content-Length", "99999999"), body=b"<p>", then="hang")
        link.server.script = first(endless)
        assert (await link.fetch())[1] == CONTENT


@in_loop
async def test_several_hops_are_followed_to_the_end() -> None:
    async with line() as link:
        link.server.script = lambda heard: (
            reply(body=CONTENT)
            if heard.target == "/5"
            else to(f"/{int(heard.target[-1]) + 1}")
            if heard.target[1:].isdigit()
            else to("/1")
        )
        assert await get(link, f"{link.server.url}/start") == CONTENT
        assert len(link.requests) == 6


@in_loop
async def test_authorization_is_not_sent_to_another_scheme(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        WireServer(lambda _: reply(body=CONTENT), tls=authority.context()) as storage,
        line(lambda _: to(f"{storage.url}/stored"), ca_file=authority.certificate) as link,
    ):
        assert (await link.fetch(credentials=ALICE))[1] == CONTENT
        assert sent_authorization(storage) == [None]
