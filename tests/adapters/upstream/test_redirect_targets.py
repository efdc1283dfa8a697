"""A request goes to the redirect target of an earlier response, and to the upstream if the target does not answer with
the content.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from yarl import URL

from adapters.upstream.client import HttpRequest
from adapters.upstream.request_limits import RequestLimits
from application.ports.upstream import (
    ForwardedCredentials,
    RedirectTarget,
    SessionCredentials,
    UpstreamCredentials,
    UpstreamRequest,
)
from domain.access import Credentials
from domain.byte_ranges import ByteRange
from domain.errors import BlobUnknown, MirrorBusy, UpstreamBroken, UpstreamThrottled
from tests.adapters.upstream.line import CONTENT, Line, in_loop, line, resources
from tests.adapters.upstream.pair import TRIAL, Pair, gives, pair
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply

ALICE = ForwardedCredentials("Basic YWxpY2U6cmlnaHQ=")
PART = ByteRange(5, 9)
PART_CONTENT = CONTENT[5:10]
SIGNED = "/a%2Fb%3Ac/stored?X-Amz-Credential=AK%2F2026&sig=a%2Bb%3D%3D&number="


def partial(heard: Heard) -> Say:
    """The whole content, or the part that the Range header names."""
    asked = heard.header("Range")
    if asked is None:
        return reply(body=CONTENT)
    first, last = map(int, asked.removeprefix("bytes=").split("-"))
    span = ("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
    return reply(206, span, body=CONTENT[first : last + 1])


@dataclass
class Storage:
    """A storage with signed addresses, and the scripts of the registries that redirect to it."""

    server: WireServer
    bad: Say | None = None
    """The response to an address that has expired."""
    valid: set[str] = field(default_factory=set)
    signed: int = 0

    def __call__(self, heard: Heard) -> Say:
        return partial(heard) if heard.target in self.valid or self.bad is None else self.bad

    def redirect(self, _: Heard) -> Say:
        """The response of a registry: a redirect to a new address, the only one that is valid."""
        self.signed += 1
        self.valid = {f"{SIGNED}{self.signed}"}
        return reply(307, ("Location", f"{self.server.url}{SIGNED}{self.signed}"))


@asynccontextmanager
async def storage_of(link: Line | None = None) -> AsyncIterator[Storage]:
    async with WireServer() as server:
        storage = Storage(server)
        server.script = storage
        if link:
            link.server.script = storage.redirect
        yield storage


async def fetch(
    link: Line | Pair, target: RedirectTarget | None = None, credentials: UpstreamCredentials = ALICE, **others: Any
) -> tuple[RedirectTarget | None, bytes]:
    """The target of the response, and its body."""
    asked = UpstreamRequest(resources(link.upstream)["blob"], credentials, target=target, **others)
    async with link.parts.registry.open(asked) as answer:
        return answer.target, await answer.read(1000)


@in_loop
async def test_the_response_states_the_exact_address_that_sent_it() -> None:
    async with line() as link, storage_of(link) as storage:
        target, content = await fetch(link)
        assert content == CONTENT
        assert target == RedirectTarget(link.upstream, f"{storage.server.url}{SIGNED}1")
        assert "sig=" not in repr(target)


@in_loop
async def test_after_several_redirects_the_target_is_the_last_address() -> None:
    async with line() as link, storage_of() as storage, WireServer(storage.redirect) as between:
        link.server.script = lambda _: reply(307, ("Location", f"{between.url}/between"))
        assert (await fetch(link))[0] == RedirectTarget(link.upstream, f"{storage.server.url}{SIGNED}1")


@in_loop
async def test_an_address_of_the_upstream_itself_is_not_a_target() -> None:
    async with line() as link:
        link.server.script = lambda heard: (
            reply(307, ("Location", "/stored")) if heard.target.startswith("/v2/") else reply(body=CONTENT)
        )
        assert await fetch(link) == (None, CONTENT)


@pytest.mark.parametrize("kind", ["manifest", "tags", "referrers"])
@in_loop
async def test_only_blobs_have_targets(kind: str) -> None:
    async with line() as link, storage_of(link):
        asked = UpstreamRequest(resources(link.upstream)[kind], ALICE)
        async with link.parts.registry.open(asked) as answer:
            assert answer.target is None


@pytest.mark.parametrize(
    "credentials", [ALICE, SessionCredentials(), SessionCredentials(Credentials("alice", "right"))]
)
@in_loop
async def test_only_the_target_is_asked_and_without_credentials(credentials: UpstreamCredentials) -> None:
    async with line() as link, storage_of(link) as storage:
        target, _ = await fetch(link, credentials=credentials)
        before = len(link.server.heard)
        for byte_range, part in ((PART, PART_CONTENT), (ByteRange(0, 0), CONTENT[:1])):
            assert await fetch(link, target, credentials, byte_range=byte_range) == (target, part)
        assert await fetch(link, target, credentials) == (target, CONTENT)
        assert len(link.server.heard) == before
        sent = storage.server.heard[1:]
        assert [heard.target for heard in sent] == [f"{SIGNED}1"] * 3
        assert [heard.header("Range") for heard in sent] == ["bytes=5-9", "bytes=0-0", None]
        assert [heard.header("Authorization") for heard in sent] == [None] * 3


BAD = {
    "400": reply(400),
    "401": reply(401, ("WWW-Authenticate", 'Basic realm="storage"')),
    "403": reply(403, ("Content-Type", "application/xml"), body=b"<Error><Code>AccessDenied</Code></Error>"),
    "404": reply(404),
    "410": reply(410),
    "416": reply(416, ("Content-Range", f"bytes */{len(CONTENT)}")),
    "429": reply(429, ("Retry-After", "7")),
    "500": reply(500),
    "503": reply(503, body=b"<Error><Code>SlowDown</Code></Error>"),
    "redirect": reply(302, ("Location", "/login")),
    "whole content": reply(body=CONTENT),
    "web page": reply(206, ("Content-Type", "text/html"), ("Content-Range", "bytes 5-9/20"), body=b"<p>  "),
    "no Content-Range": reply(206, body=PART_CONTENT),
    "content coding": reply(206, ("Content-Encoding", "gzip"), ("Content-Range", "bytes 5-9/20"), body=PART_CONTENT),
    "close": Say(then="close"),
    "reset": Say(then="reset"),
    "not HTTP": Say(b"SSH-2.0-x\r\n\r\n", "close"),
    "silence": Say(then="hang"),
}


@pytest.mark.parametrize("bad", BAD)
@in_loop
async def test_after_a_bad_answer_of_the_target_the_upstream_names_a_new_one(bad: str) -> None:
    limits = RequestLimits(max_connections=1)  # the first request must have ended before the next begins
    async with line(limits=limits, read_timeout=0.3) as link, storage_of(link) as storage:
        target, _ = await fetch(link)
        storage.valid.clear()
        storage.bad = BAD[bad]
        async with asyncio.timeout(5):
            found, content = await fetch(link, target, byte_range=PART)
        assert content == PART_CONTENT
        assert found == RedirectTarget(link.upstream, f"{storage.server.url}{SIGNED}2")
        assert [heard.header("Authorization") for heard in link.server.heard] == [ALICE.raw] * 2
        assert link.server.heard[1].header("Range") == "bytes=5-9"
        assert {heard.target for heard in storage.server.heard} == {f"{SIGNED}1", f"{SIGNED}2"}


@in_loop
async def test_a_part_in_place_of_the_whole_content_is_a_bad_answer() -> None:
    async with line() as link, storage_of(link) as storage:
        target, _ = await fetch(link)
        storage.valid.clear()
        storage.bad = reply(206, ("Content-Range", "bytes 5-9/20"), body=PART_CONTENT)
        assert (await fetch(link, target))[1] == CONTENT


@in_loop
async def test_if_the_target_cannot_be_reached_the_upstream_is_asked() -> None:
    async with line() as link:
        async with storage_of(link):
            target, _ = await fetch(link)
        link.server.script = partial
        assert await fetch(link, target, byte_range=PART) == (None, PART_CONTENT)


@pytest.mark.parametrize(("said", "expected"), [(reply(404), BlobUnknown), (reply(429), UpstreamThrottled)])
@in_loop
async def test_the_error_after_a_bad_answer_of_the_target_is_that_of_the_upstream(
    said: Say, expected: type[Exception]
) -> None:
    async with line() as link, storage_of(link) as storage:
        target, _ = await fetch(link)
        storage.valid.clear()
        storage.bad = reply(403)
        link.server.script = lambda _: said
        with pytest.raises(expected):
            await fetch(link, target)


@in_loop
async def test_a_body_of_the_target_that_ends_too_early_is_an_error_of_that_response() -> None:
    async with line() as link, storage_of(link) as storage:
        target, _ = await fetch(link)
        storage.valid.clear()
        storage.bad = reply(206, ("Content-Range", "bytes 5-9/20"), ("Content-Length", "5"), body=b"x", then="close")
        with pytest.raises(UpstreamBroken):
            await fetch(link, target, byte_range=PART)
        assert len(link.server.heard) == 1


@in_loop
async def test_a_request_to_the_target_needs_a_connection_but_no_turn() -> None:
    async with line(limits=RequestLimits(max_connections=1, max_rate=0.01)) as link, storage_of(link):
        target, _ = await fetch(link)
        async with asyncio.timeout(5):
            for _ in range(3):
                assert (await fetch(link, target, is_extra=True))[1] == CONTENT
            opened = UpstreamRequest(resources(link.upstream)["blob"], ALICE, target=target)
            async with link.parts.registry.open(opened):
                with pytest.raises(MirrorBusy):
                    await fetch(link, target, is_extra=True)


@in_loop
async def test_an_extra_request_does_not_wait_for_the_upstream_after_a_bad_answer_of_the_target() -> None:
    async with line(limits=RequestLimits(max_rate=0.01)) as link, storage_of(link) as storage:
        target, _ = await fetch(link)
        storage.valid.clear()
        storage.bad = reply(403)
        with pytest.raises(MirrorBusy):
            await asyncio.wait_for(fetch(link, target, is_extra=True), 5)
        assert len(link.server.heard) == 1


@pytest.mark.parametrize("url", ["http://storage.test/stored", "ftp://storage.test/stored", "https://", "//"])
def test_a_target_to_which_the_mirror_does_not_follow_is_refused(url: str) -> None:
    request = HttpRequest("GET", URL("https://registry.test/v2/a/blobs/b"))
    with pytest.raises(UpstreamBroken):
        request.at_target(url)


def test_a_request_loses_its_credentials_at_a_target() -> None:
    request = HttpRequest("GET", URL("https://registry.test/v2/a/blobs/b"), authorization=ALICE.raw)
    target = request.at_target("https://storage.test/stored")
    assert (str(target.url), target.authorization) == ("https://storage.test/stored", None)


# --- an upstream with several endpoints ---


@in_loop
async def test_an_expired_target_is_not_a_failure_of_its_endpoint() -> None:
    async with pair(gives) as both, storage_of() as storage:
        both.first.script = storage.redirect
        target, _ = await fetch(both)
        assert target
        assert target.endpoint.url == both.first.url
        storage.valid.clear()
        storage.bad = reply(503)
        found, content = await fetch(both, target, byte_range=PART)
        assert (found is not None, content) == (True, PART_CONTENT)
        assert (both.request_counts, both.endpoint_events) == ((2, 0), [])


@in_loop
async def test_the_target_of_a_fallback_is_used_again() -> None:
    async with pair(lambda _: reply(503)) as both, storage_of() as storage:
        both.second.script = storage.redirect
        target, _ = await fetch(both)
        assert target
        assert target.endpoint.url == both.second.url
        assert await fetch(both, target, byte_range=PART) == (target, PART_CONTENT)
        assert both.request_counts == (1, 1)


@in_loop
async def test_after_an_incomplete_body_of_the_target_the_next_endpoint_is_asked() -> None:
    async with pair(gives) as both, storage_of() as storage:
        both.first.script = storage.redirect
        both.second.script = partial
        target, _ = await fetch(both)
        storage.valid.clear()
        storage.bad = reply(206, ("Content-Range", "bytes 5-9/20"), ("Content-Length", "5"), body=b"x", then="close")
        with pytest.raises(UpstreamBroken):
            await fetch(both, target, byte_range=PART)
        assert both.endpoint_events == [("EndpointFailed", both.first.url)]
        assert await fetch(both, target, byte_range=PART) == (None, PART_CONTENT)
        assert both.request_counts == (1, 1)


@in_loop
async def test_a_target_does_not_show_that_its_failed_endpoint_works_again() -> None:
    async with pair(gives) as both, storage_of() as storage:
        both.first.script = storage.redirect
        target, _ = await fetch(both)
        both.first.script = lambda _: reply(503)
        await fetch(both)
        await asyncio.sleep(TRIAL * 1.2)  # a trial of the first endpoint is due
        assert (await fetch(both, target))[1] == CONTENT
        assert both.endpoint_events == [("EndpointFailed", both.first.url)]
        assert len(storage.server.heard) == 1
