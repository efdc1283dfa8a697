"""Responses of a login portal or a proxy instead of the upstream."""

import pytest

from domain.errors import UpstreamBroken
from tests.adapters.upstream.line import CONTENT, DIGEST, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, reply, whole

PAGE = b"<!DOCTYPE html><html><title>Log in to continue</title></html>"
HTML = ("Content-Type", "text/html; charset=utf-8")
KINDS = ["manifest", "blob", "tags", "catalog"]


def portal(heard: Heard) -> Say:
    return whole(heard, PAGE, HTML)


def behind_a_redirect(heard: Heard) -> Say:
    if heard.target.startswith("/v2/"):
        return reply(302, ("Location", "/portal?next=somewhere"))
    return portal(heard)


@pytest.mark.parametrize("script", [portal, behind_a_redirect])
@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_a_web_page_is_an_error(script: object, kind: str) -> None:
    async with line(script) as link:
        with pytest.raises(UpstreamBroken, match="web page"):
            await link.fetch(kind)


@pytest.mark.parametrize("script", [portal, behind_a_redirect])
@pytest.mark.parametrize("kind", ["manifest", "blob"])
@in_loop
async def test_a_head_that_a_portal_answers_is_an_error(script: object, kind: str) -> None:
    async with line(script) as link:
        with pytest.raises(UpstreamBroken, match="web page"):
            await link.fetch(kind, head=True)


@pytest.mark.parametrize("media_type", ["TEXT/HTML", "application/xhtml+xml", "text/html;charset=x"])
@in_loop
async def test_every_spelling_of_the_media_type_is_recognized(media_type: str) -> None:
    async with line(lambda heard: whole(heard, PAGE, ("Content-Type", media_type))) as link:
        with pytest.raises(UpstreamBroken, match="web page"):
            await link.fetch("manifest")


@in_loop
async def test_a_head_with_the_type_of_a_web_page_is_repeated_as_a_get() -> None:
    def script(heard: Heard) -> Say:
        return whole(heard, CONTENT, HTML if heard.method == "HEAD" else ("Content-Type", "application/octet-stream"))

    async with line(script) as link:
        metadata, _ = await link.fetch(head=True)
        assert (metadata.size, metadata.media_type) == (len(CONTENT), "application/octet-stream")
        assert [heard.method for heard in link.server.heard] == ["HEAD", "GET"]


@pytest.mark.parametrize("head", [True, False])
@in_loop
async def test_a_blob_that_is_a_web_page_comes_with_its_digest(*, head: bool) -> None:
    """A layer may be a web page. Only a registry knows its digest."""
    async with line(lambda heard: whole(heard, CONTENT, HTML, ("Docker-Content-Digest", str(DIGEST)))) as link:
        metadata, _ = await link.fetch(head=head)
        assert metadata.size == len(CONTENT)
