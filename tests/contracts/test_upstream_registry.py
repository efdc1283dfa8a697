"""The contract of UpstreamRegistry: for the fake, and for the adapter with a registry that follows the standard."""

import json

import pytest

from application.ports.upstream import (
    ForwardedCredentials,
    Resource,
    ResponseMetadata,
    SessionCredentials,
    UpstreamCredentials,
    UpstreamRequest,
)
from domain.access import Credentials
from domain.byte_ranges import ByteRange, Span
from domain.digest import Digest
from domain.errors import (
    BlobUnknown,
    CredentialsRejected,
    ManifestUnknown,
    NameUnknown,
    RangeUnsatisfiable,
    UpstreamBroken,
    UpstreamChallenged,
)
from domain.names import Reference, RepositoryName
from tests.adapters.upstream.line import in_loop
from tests.contracts.upstreams import ALICE, BLOB, BLOB_DIGEST, MANIFEST, PLAYERS, PRIVATE, PUBLIC, Player, playing
from tests.fakes.upstream import IMAGE

pytestmark = pytest.mark.parametrize("player", PLAYERS)
BASIC = ForwardedCredentials("Basic YWxpY2U6cmlnaHQ=")
WRONG = Credentials("alice", "wrong")


def manifest(asked: Player, name: RepositoryName = PUBLIC, reference: str = "1") -> Resource:
    return Resource.manifest(asked.source(name), Reference.parse(reference))


def blob(asked: Player, digest: Digest = BLOB_DIGEST) -> Resource:
    return Resource.blob(asked.source(), digest)


async def read(
    asked: Player, resource: Resource, right: UpstreamCredentials | None = None, byte_range: ByteRange | None = None
) -> tuple[ResponseMetadata, bytes]:
    fetch = UpstreamRequest(resource, right or ForwardedCredentials(), byte_range=byte_range)
    async with asked.registry.open(fetch) as answer:
        return answer.metadata, await answer.read(1000)


@in_loop
async def test_manifest_is_found_by_tag_and_digest(player: str) -> None:
    async with playing(player) as asked:
        for reference in ("1", str(Digest.of(MANIFEST))):
            metadata, content = await read(asked, manifest(asked, reference=reference))
            assert content == MANIFEST
            assert (metadata.media_type, metadata.size, metadata.digest) == (IMAGE, len(MANIFEST), Digest.of(MANIFEST))
            assert (metadata.span, metadata.whole_size) == (None, None)


@in_loop
async def test_head_has_the_same_metadata_as_get(player: str) -> None:
    async with playing(player) as asked:
        for resource in (manifest(asked), blob(asked)):
            metadata, _ = await read(asked, resource)
            async with asked.registry.open(UpstreamRequest(resource, ForwardedCredentials(), head=True)) as answer:
                assert answer.metadata == metadata


@in_loop
async def test_blob_is_read_in_pieces_or_completely(player: str) -> None:
    async with playing(player) as asked:
        async with asked.registry.open(UpstreamRequest(blob(asked), ForwardedCredentials())) as answer:
            assert b"".join([piece async for piece in answer.pieces()]) == BLOB
            assert (answer.metadata.size, answer.metadata.span) == (len(BLOB), None)
        assert (await read(asked, blob(asked)))[1] == BLOB


@pytest.mark.parametrize(
    ("byte_range", "span"),
    [(ByteRange(2, 4), Span(2, 5)), (ByteRange(2, None), Span(2, 21)), (ByteRange(None, 3), Span(18, 21))],
)
@in_loop
async def test_range_of_a_blob_has_its_span(player: str, byte_range: ByteRange, span: Span) -> None:
    async with playing(player) as asked:
        metadata, content = await read(asked, blob(asked), byte_range=byte_range)
        assert content == BLOB[span.start : span.stop]
        assert (metadata.span, metadata.whole_size, metadata.size) == (span, len(BLOB), span.length)


@in_loop
async def test_range_beyond_the_end_is_unsatisfiable(player: str) -> None:
    async with playing(player) as asked:
        with pytest.raises(RangeUnsatisfiable) as refused:
            await read(asked, blob(asked), byte_range=ByteRange(99, None))
        assert refused.value.size == len(BLOB)


@in_loop
async def test_lists_are_always_json_objects(player: str) -> None:
    async with playing(player) as asked:
        metadata, content = await read(asked, Resource.tags(asked.source(), ()))
        assert json.loads(content) == {"name": "public/app", "tags": ["1"]}
        assert (metadata.media_type, metadata.link) == ("application/json", None)
        _, content = await read(asked, Resource.catalog(asked.upstream, ()))
        assert json.loads(content) == {"repositories": ["private/app", "public/app"]}
        _, content = await read(asked, Resource.referrers(asked.source(), BLOB_DIGEST, ()))
        assert json.loads(content)["manifests"] == []


@in_loop
async def test_unknown_content_raises_the_error_of_its_kind(player: str) -> None:
    async with playing(player) as asked:
        with pytest.raises(ManifestUnknown):
            await read(asked, manifest(asked, reference="none"))
        with pytest.raises(BlobUnknown):
            await read(asked, blob(asked, Digest.of(b"none")))
        with pytest.raises(NameUnknown):
            await read(asked, Resource.tags(asked.source(RepositoryName("no/such")), ()))


@in_loop
async def test_body_longer_than_the_limit_raises_upstream_broken(player: str) -> None:
    async with (
        playing(player) as asked,
        asked.registry.open(UpstreamRequest(blob(asked), ForwardedCredentials())) as answer,
    ):
        with pytest.raises(UpstreamBroken):
            await answer.read(len(BLOB) - 1)


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
@in_loop
async def test_invalid_forwarded_credentials_raise_upstream_challenged(player: str, scheme: str) -> None:
    async with playing(player, scheme) as asked:
        for right in (ForwardedCredentials(), ForwardedCredentials("Bearer unknown"), ForwardedCredentials("Digest x")):
            with pytest.raises(UpstreamChallenged) as refused:
                await read(asked, manifest(asked), right)
            assert [one.scheme.lower() for one in refused.value.challenges] == [scheme]


@in_loop
async def test_forwarded_basic_credentials_are_accepted_by_a_basic_upstream(player: str) -> None:
    async with playing(player, "basic") as asked:
        assert (await read(asked, manifest(asked, PRIVATE), BASIC))[1] == MANIFEST
        assert (await asked.registry.ping(asked.upstream, BASIC)).accepted


@pytest.mark.parametrize("scheme", ["none", "bearer", "basic"])
@in_loop
async def test_session_answers_the_challenge_of_each_scheme(player: str, scheme: str) -> None:
    async with playing(player, scheme) as asked:
        assert (await read(asked, manifest(asked, PRIVATE), SessionCredentials(ALICE)))[1] == MANIFEST
        assert (await asked.registry.ping(asked.upstream, SessionCredentials(ALICE))).accepted


@in_loop
async def test_anonymous_session_reads_public_content(player: str) -> None:
    async with playing(player, "bearer") as asked:
        assert (await read(asked, manifest(asked), SessionCredentials(None)))[1] == MANIFEST
        with pytest.raises(UpstreamChallenged):
            await read(asked, manifest(asked, PRIVATE), SessionCredentials(None))


@in_loop
async def test_session_with_a_wrong_login_is_refused_by_the_token_server(player: str) -> None:
    async with playing(player, "bearer") as asked:
        with pytest.raises(CredentialsRejected):
            await read(asked, manifest(asked), SessionCredentials(WRONG))


@in_loop
async def test_session_with_a_wrong_login_raises_upstream_challenged(player: str) -> None:
    """A 401 raises UpstreamChallenged even if the session has answered the challenge with its login."""
    async with playing(player, "basic") as asked:
        for right in (SessionCredentials(WRONG), SessionCredentials(None)):
            with pytest.raises(UpstreamChallenged):
                await read(asked, manifest(asked), right)


@pytest.mark.parametrize(("scheme", "accepted"), [("none", True), ("bearer", False), ("basic", False)])
@in_loop
async def test_ping_is_accepted_or_challenged(player: str, scheme: str, *, accepted: bool) -> None:
    async with playing(player, scheme) as asked:
        answer = await asked.registry.ping(asked.upstream, ForwardedCredentials())
        assert answer.accepted is accepted
        assert [one.scheme.lower() for one in answer.challenges] == ([] if accepted else [scheme])
