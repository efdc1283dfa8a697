"""The contract of UpstreamRegistry: for the fake, and for the adapter with a registry that follows the standard."""

import asyncio
import json

import pytest

from application.ports.upstream import (
    ForwardedCredentials,
    RedirectTarget,
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
    MirrorBusy,
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


async def read_target(
    asked: Player, target: RedirectTarget | None, byte_range: ByteRange | None = None
) -> tuple[RedirectTarget | None, bytes]:
    """Request a blob with this target. Returns the target of the response, and its body."""
    fetch = UpstreamRequest(blob(asked), SessionCredentials(), byte_range=byte_range, target=target)
    async with asked.registry.open(fetch) as answer:
        return answer.target, await answer.read(1000)


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
async def test_response_states_the_etag_and_the_support_of_ranges(player: str) -> None:
    async with playing(player) as asked:
        for byte_range in (None, ByteRange(2, 4)):
            metadata, _ = await read(asked, blob(asked), byte_range=byte_range)
            assert (metadata.etag, metadata.accepts_ranges) == (f'"{BLOB_DIGEST}"', True)
        metadata, _ = await read(asked, manifest(asked))
        assert (metadata.etag, metadata.accepts_ranges) == (f'"{Digest.of(MANIFEST)}"', False)


@in_loop
async def test_only_a_blob_from_a_redirect_has_a_target(player: str) -> None:
    for has_storage in (False, True):
        async with playing(player, has_storage=has_storage) as asked:
            target = (await read_target(asked, None))[0]
            assert (target is not None) == has_storage
            assert target is None or target.endpoint == asked.upstream
            async with asked.registry.open(UpstreamRequest(manifest(asked), ForwardedCredentials())) as answer:
                assert answer.target is None
            async with asked.registry.open(UpstreamRequest(blob(asked), ForwardedCredentials(), head=True)) as answer:
                assert answer.target is None


@in_loop
async def test_redirect_target_is_used_again_while_it_is_valid(player: str) -> None:
    async with playing(player, "bearer", has_storage=True) as asked:
        target, _ = await read_target(asked, None)
        for byte_range in (ByteRange(2, 4), ByteRange(5, None)):
            found, content = await read_target(asked, target, byte_range)
            assert found == target
            assert content == BLOB[byte_range.of(len(BLOB)).start : byte_range.of(len(BLOB)).stop]
        assert asked.content.signatures == 1


@in_loop
async def test_expired_redirect_target_is_replaced(player: str) -> None:
    async with playing(player, "bearer", has_storage=True) as asked:
        target, _ = await read_target(asked, None)
        asked.content.signed.clear()
        found, content = await read_target(asked, target, ByteRange(2, 4))
        assert content == BLOB[2:5]
        assert found not in {None, target}
        assert asked.content.signatures == 2


@in_loop
async def test_extra_request_is_refused_while_all_connections_are_in_use(player: str) -> None:
    async with playing(player, connections=2) as asked:
        extra = UpstreamRequest(blob(asked), ForwardedCredentials(), byte_range=ByteRange(2, 4), is_extra=True)
        async with asked.registry.open(UpstreamRequest(blob(asked), ForwardedCredentials())):
            async with asked.registry.open(extra) as answer:
                assert await answer.read(1000) == BLOB[2:5]
                with pytest.raises(MirrorBusy):
                    await asyncio.wait_for(asked.registry.open(extra).__aenter__(), 5)
            async with asked.registry.open(extra) as answer:
                assert await answer.read(1000) == BLOB[2:5]


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
