"""A 200 whose body is no manifest: a login portal, a proxy's page, another service's JSON."""

import base64
import json
from dataclasses import replace

import pytest

from domain.digest import Digest
from domain.errors import UpstreamBroken
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE, NAME
from tests.fakes.upstream import FakeAnswer

PAGE = b"<!DOCTYPE html><html><title>Log in to continue</title></html>"
FOREIGN = [
    ("text/html", PAGE),
    ("text/html; charset=utf-8", IMAGE_CONTENT),
    ("text/plain", PAGE),
    (None, PAGE),
    (None, b""),
    ("application/json", b'{"error":"log in first"}'),
    ("application/json", b'{"errors":[{"code":"DENIED"}]}'),
    ("application/octet-stream", b"\x00\x01"),
    (IMAGE_TYPE, PAGE),
    (IMAGE_TYPE, b'{"error":"log in first"}'),
    ("application/vnd.example.unheard.of.v1", PAGE),
]
ANY = pytest.mark.parametrize(("media_type", "content"), FOREIGN)
SCHEMA_1 = b'{"schemaVersion":1,"name":"public/app","tag":"1","fsLayers":[]}'


class Portal(Pulls):
    """A public upstream, in whose place somebody else answers from `take_over` on."""

    def __init__(self) -> None:
        super().__init__("none")

    def take_over(self, media_type: str | None, content: bytes) -> None:
        def alter(answer: FakeAnswer) -> FakeAnswer:
            metadata = replace(answer.metadata, media_type=media_type, size=len(content), digest=None)
            return replace(answer, metadata=metadata, content=content)

        self.upstream.alter = alter

    async def kept(self) -> tuple[int, int, int]:
        """How many links, tags and contents are stored."""
        storage, source = self.service.parts.storage(), self.service.parts.upstreams().source_of(NAME)
        tags = await storage.index.tags_of(source.upstream)
        return len(await storage.index.links_of(source)), len(tags), len(self.service.parts.store().content)


@ANY
def test_a_body_that_is_no_manifest_is_an_error_and_is_not_stored(media_type: str | None, content: bytes) -> None:
    portal = Portal()
    portal.take_over(media_type, content)

    async def act() -> None:
        for query in ({}, {"head": True}, {"known": frozenset({str(IMAGE_DIGEST)})}, {"reference": str(IMAGE_DIGEST)}):
            with pytest.raises(UpstreamBroken):
                await portal.pull(None, name=NAME, **query)
        if not (media_type or "").startswith("application/vnd."):
            # Of a type that only manifests have, a HEAD by digest is all that there is to be known.
            with pytest.raises(UpstreamBroken):
                await portal.pull(None, name=NAME, reference=str(IMAGE_DIGEST), head=True)
        portal.upstream.alter = lambda answer: answer
        assert (await portal.pull(None, name=NAME)).content == IMAGE_CONTENT

    portal.run(act())


@ANY
def test_nothing_of_it_is_kept(media_type: str | None, content: bytes) -> None:
    portal = Portal()
    portal.take_over(media_type, content)

    async def act() -> tuple[int, int, int]:
        for head in (True, False):
            with pytest.raises(UpstreamBroken):
                await portal.pull(None, name=NAME, head=head)
        return await portal.kept()

    assert portal.run(act()) == (0, 0, 0)


@ANY
@pytest.mark.parametrize("head", [False, True])
def test_the_older_copy_stands_in(media_type: str | None, content: bytes, *, head: bool) -> None:
    portal = Portal()

    async def act() -> None:
        await portal.pull(None, name=NAME)
        portal.take_over(media_type, content)
        portal.service.clock.advance(61)
        answer = await portal.pull(None, name=NAME, head=head)
        assert (answer.digest, answer.content) == (IMAGE_DIGEST, None if head else IMAGE_CONTENT)
        assert answer.warnings
        assert answer.size == len(IMAGE_CONTENT)
        portal.upstream.alter = lambda answer: answer
        again = await portal.pull(None, name=NAME, head=head)
        assert (again.digest, again.warnings, again.media_type) == (IMAGE_DIGEST, (), IMAGE_TYPE)

    portal.run(act())


@pytest.mark.parametrize("media_type", ["text/html", "text/plain", "application/json", None])
def test_a_head_that_any_server_would_answer_proves_no_permission(media_type: str | None) -> None:
    """A digest that is here, after the grant has ended: a portal's 200 to the HEAD is no word of the upstream's."""
    portal = Portal()
    digest = {"name": NAME, "reference": str(IMAGE_DIGEST)}

    async def act() -> None:
        await portal.pull(None, **digest)
        portal.take_over(media_type, PAGE)
        portal.service.clock.advance(301)
        answer = await portal.pull(None, **digest)
        assert (answer.content, answer.media_type) == (IMAGE_CONTENT, IMAGE_TYPE)
        assert answer.warnings, "it stands in, as while the upstream is down"

    portal.run(act())


@pytest.mark.parametrize("media_type", ["text/plain", "text/plain; charset=utf-8", "application/json", None])
def test_schema_1_of_any_type_is_a_manifest(media_type: str | None) -> None:
    portal = Portal()
    portal.take_over(media_type, SCHEMA_1)

    async def act() -> None:
        for head in (False, True):
            answer = await portal.pull(None, name=NAME, head=head)
            assert answer.digest == Digest.of(SCHEMA_1)
            assert answer.media_type == (media_type or "application/vnd.docker.distribution.manifest.v1+json")

    portal.run(act())


def signed_schema_1() -> tuple[bytes, Digest]:
    """A manifest with a signature, and its digest, which is over what was signed."""
    signed = b'{\n   "schemaVersion": 1,\n   "fsLayers": []\n}'
    head, tail = signed[:-2], signed[-2:]
    protected = {"formatLength": len(head), "formatTail": base64.urlsafe_b64encode(tail).decode()}
    signature = {"protected": base64.urlsafe_b64encode(json.dumps(protected).encode()).decode()}
    return head + b',"signatures":[' + json.dumps(signature).encode() + b"]}", Digest.of(signed)


@pytest.mark.parametrize(
    "media_type", ["application/vnd.docker.distribution.manifest.v1+prettyjws", "text/plain; charset=utf-8", None]
)
@pytest.mark.parametrize("is_told", [True, False])
def test_signed_schema_1_of_any_type_has_the_digest_of_what_was_signed(
    media_type: str | None, *, is_told: bool
) -> None:
    portal, (content, digest) = Portal(), signed_schema_1()

    def alter(answer: FakeAnswer) -> FakeAnswer:
        metadata = replace(
            answer.metadata, media_type=media_type, size=len(content), digest=digest if is_told else None
        )
        return replace(answer, metadata=metadata, content=content)

    portal.upstream.alter = alter
    answer = portal.run(portal.pull(None, name=NAME))
    assert (answer.content, answer.digest) == (content, digest)


def test_a_manifest_without_a_media_type_gets_the_one_that_it_states() -> None:
    portal = Portal()
    portal.take_over(None, IMAGE_CONTENT)
    answer = portal.run(portal.pull(None, name=NAME))
    assert (answer.media_type, answer.content) == (IMAGE_TYPE, IMAGE_CONTENT)
