"""Requests to a registry, and its successful responses."""

import asyncio
import gzip
from contextlib import suppress
from dataclasses import replace

import pytest

from application.ports.telemetry import begin_record
from application.ports.tracing import UntracedSpan, work_for
from application.ports.upstream import ForwardedCredentials, ResponseMetadata, UpstreamRequest
from domain.allowance import RateLimit
from domain.byte_ranges import ByteRange, Span
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken
from domain.events import UpstreamAnswered
from domain.trace_context import TraceContext
from tests.adapters.upstream.line import CONTENT, DIGEST, in_loop, line, resources
from tests.adapters.upstream.wire import Headers, Heard, Say, WireServer, reply, whole

TYPE = "application/vnd.oci.image.manifest.v1+json"
PART = CONTENT[2:7]


@in_loop
async def test_a_request_has_exactly_these_headers() -> None:
    async with line(lambda _: reply(body=CONTENT)) as link:
        await link.fetch(
            "manifest", ForwardedCredentials("Bearer abc=="), accept=("a/b, c/d", "*/*"), byte_range=ByteRange(2, None)
        )
        assert link.server.heard[0].headers == (
            ("Host", f"127.0.0.1:{link.server.port}"),
            ("Accept-Encoding", "identity"),
            ("Accept", "a/b, c/d"),
            ("Accept", "*/*"),
            ("Range", "bytes=2-"),
            ("User-Agent", "test-agent/1"),
            ("Authorization", "Bearer abc=="),
        )


@pytest.mark.parametrize("path", ["", "/prefix", "/a/b"])
@in_loop
async def test_every_resource_has_its_address(path: str) -> None:
    async with line(lambda _: reply(body=b"{}"), path=path) as link:
        for kind in ("manifest", "blob", "tags", "catalog", "referrers"):
            await link.fetch(kind)
        assert [target for _, target in link.requests] == [
            f"{path}/v2/some/app/manifests/1",
            f"{path}/v2/some/app/blobs/{DIGEST}",
            f"{path}/v2/some/app/tags/list?n=5",
            f"{path}/v2/_catalog",
            f"{path}/v2/some/app/referrers/{DIGEST}",
        ]


@in_loop
async def test_caller_without_authorization_sends_none() -> None:
    async with line(lambda _: reply(body=CONTENT)) as link:
        await link.fetch()
        assert link.server.heard[0].header("Authorization") is None


@pytest.mark.parametrize(
    "raw", ["Bearer a.b.c~d=", "Basic  YTpi", "basic YTpi", "Digest x", "", "Bearer " + "x" * 20_000]
)
@in_loop
async def test_the_callers_authorization_is_sent_unchanged(raw: str) -> None:
    async with line(lambda _: reply(body=CONTENT)) as link:
        await link.fetch(credentials=ForwardedCredentials(raw))
        assert link.server.heard[0].lines("Authorization") == [raw]


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((("ratelimit-limit", "100;w=21600"), ("RateLimit-Remaining", "76;w=21600")), RateLimit(100, 76, 21600)),
        ((("ratelimit-limit", "plenty"), ("ratelimit-remaining", "more")), None),
        ((), None),
    ],
)
@in_loop
async def test_what_is_left_of_an_allowance_is_read(
    shown: tuple[tuple[str, str], ...], expected: RateLimit | None, *, head: bool
) -> None:
    headers = (*shown, ("docker-ratelimit-source", "192.0.2.1"), ("Content-Length", str(len(CONTENT))))
    async with line(lambda _: reply(200, *headers, body=b"" if head else CONTENT)) as link:
        metadata, _ = await link.fetch("manifest", head=head)
    assert metadata.allowance == expected


@pytest.mark.parametrize("head", [True, False])
@in_loop
async def test_headers_of_the_response_become_metadata(*, head: bool) -> None:
    headers = (
        ("Content-Type", TYPE),
        ("Docker-Content-Digest", str(DIGEST)),
        ("Link", '</v2/_catalog>; rel="first"'),
        ("Link", '</v2/_catalog?last=x>; rel="next"'),
        ("OCI-Filters-Applied", "artifactType"),
        ("Warning", '110 registry.test "Response is stale", 299 registry.test "one"'),
        ("Warning", '299 - "two"'),
        ("Content-Length", str(len(CONTENT))),
    )
    async with line(lambda _: reply(200, *headers, body=b"" if head else CONTENT)) as link:
        metadata, content = await link.fetch(head=head)
    link_header = '</v2/_catalog>; rel="first", </v2/_catalog?last=x>; rel="next"'
    warnings = ('299 - "one"', '299 - "two"')
    assert metadata == ResponseMetadata(TYPE, len(CONTENT), DIGEST, None, None, link_header, "artifactType", warnings)
    assert content == (b"" if head else CONTENT)


@in_loop
async def test_missing_headers_are_none() -> None:
    async with line(lambda _: Say(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT, "close")) as link:
        assert (await link.fetch())[0] == ResponseMetadata()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['"abc"'], '"abc"'),
        (['""'], '""'),
        (['"sha256:0a,!#[]~"'], '"sha256:0a,!#[]~"'),
        (['"caf\u00e9"'], '"caf\u00e9"'),
        (['W/"abc"'], None),
        (["abc"], None),
        (['"abc'], None),
        (['abc"'], None),
        (['"a"b"'], None),
        (['"a b"'], None),
        (['"a", "b"'], None),
        (['"a"', '"b"'], None),
        ([""], None),
        ([], None),
    ],
)
@in_loop
async def test_only_a_strong_etag_is_kept(lines: list[str], expected: str | None) -> None:
    """RFC 9110 sections 8.8.1 and 8.8.3."""
    head = "".join(f"ETag: {value}\r\n" for value in lines).encode()
    said = Say(b"HTTP/1.1 200 OK\r\n" + head + f"Content-Length: {len(CONTENT)}\r\n\r\n".encode() + CONTENT)
    async with line(lambda _: said) as link:
        assert (await link.fetch())[0].etag == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["bytes"], True),
        (["Bytes"], True),
        (["seconds, bytes"], True),
        (["seconds", "bytes"], True),
        (["none"], False),
        (["seconds"], False),
        (["kilobytes"], False),
        ([""], False),
        ([], False),
    ],
)
@in_loop
async def test_ranges_are_accepted_if_the_response_says_so(lines: list[str], *, expected: bool) -> None:
    headers = [("Accept-Ranges", value) for value in lines]
    async with line(lambda heard: whole(heard, CONTENT, *headers)) as link:
        for head in (False, True):
            assert (await link.fetch(head=head))[0].accepts_ranges is expected


@pytest.mark.parametrize("headers", [(), (("Accept-Ranges", "none"),)])
@in_loop
async def test_a_partial_response_shows_that_ranges_are_accepted(headers: Headers) -> None:
    span = ("Content-Range", f"bytes 2-4/{len(CONTENT)}")
    async with line(lambda _: reply(206, span, *headers, body=CONTENT[2:5])) as link:
        metadata, _ = await link.fetch(byte_range=ByteRange(2, 4))
        assert metadata.accepts_ranges


@pytest.mark.parametrize(("registrys", "storages"), [("bytes", "none"), ("none", "bytes")])
@in_loop
async def test_the_etag_and_the_ranges_are_those_of_the_final_response(registrys: str, storages: str) -> None:
    def headers(units: str) -> Headers:
        return ("ETag", f'"with {units}"'.replace(" ", "-")), ("Accept-Ranges", units)

    async with WireServer(lambda _: reply(200, *headers(storages), body=CONTENT)) as storage, line() as link:
        link.server.script = lambda _: reply(307, ("Location", f"{storage.url}/stored"), *headers(registrys))
        metadata, _ = await link.fetch()
        assert (metadata.etag, metadata.accepts_ranges) == (f'"with-{storages}"', storages == "bytes")


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        (f"{TYPE}; charset=utf-8", TYPE),
        ("TEXT/Plain", "TEXT/Plain"),
        ("x", "x"),
        ("application/vnd.unheard.of+json", "application/vnd.unheard.of+json"),
    ],
)
@in_loop
async def test_a_media_type_is_kept_without_its_parameters(media_type: str, expected: str) -> None:
    async with line(lambda _: reply(200, ("Content-Type", media_type), body=CONTENT)) as link:
        assert (await link.fetch())[0].media_type == expected


@pytest.mark.parametrize("digest", ["", "sha256:abc", "md5:abc", f"sha256:{'A' * 64}", "nonsense"])
@in_loop
async def test_a_digest_that_cannot_be_verified_is_ignored(digest: str) -> None:
    async with line(lambda _: reply(200, ("Docker-Content-Digest", digest), body=CONTENT)) as link:
        assert (await link.fetch())[0].digest is None


@in_loop
async def test_a_sha512_digest_is_kept() -> None:
    digest = Digest.of(CONTENT, "sha512")
    async with line(lambda _: reply(200, ("Docker-Content-Digest", str(digest)), body=CONTENT)) as link:
        assert (await link.fetch())[0].digest == digest


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"])
@in_loop
async def test_blob_with_a_coding_is_refused(coding: str) -> None:
    async with line(lambda _: reply(200, ("Content-Encoding", coding), body=gzip.compress(CONTENT))) as link:
        with pytest.raises(UpstreamBroken, match="with the coding"):
            await link.fetch("blob")


@pytest.mark.parametrize("coding", ["deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("kind", ["manifest", "tags"])
@in_loop
async def test_an_unknown_coding_is_refused(kind: str, coding: str) -> None:
    async with line(lambda _: reply(200, ("Content-Encoding", coding), body=CONTENT)) as link:
        with pytest.raises(UpstreamBroken, match="with the coding"):
            await link.fetch(kind)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize("kind", ["manifest", "tags", "catalog", "referrers"])
@in_loop
async def test_gzip_of_small_bodies_is_decoded(kind: str, coding: str) -> None:
    async with line(lambda _: reply(200, ("Content-Encoding", coding), body=gzip.compress(CONTENT))) as link:
        metadata, content = await link.fetch(kind)
        assert (metadata.size, content) == (None, CONTENT)


@in_loop
async def test_part_of_a_coded_manifest_is_refused() -> None:
    headers = (("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-4/20"))
    async with line(lambda _: reply(206, *headers, body=PART)) as link:
        with pytest.raises(UpstreamBroken, match="with the coding"):
            await link.fetch("manifest", byte_range=ByteRange(0, 4))


@in_loop
async def test_the_coding_identity_is_accepted() -> None:
    async with line(lambda _: reply(200, ("Content-Encoding", "identity"), body=CONTENT)) as link:
        assert (await link.fetch())[1] == CONTENT


@in_loop
async def test_layer_that_is_compressed_stays_compressed() -> None:
    content = b"\x1f\x8b\x08\x00 no real gzip"
    async with line(lambda _: reply(200, ("Content-Type", "application/gzip"), body=content)) as link:
        assert (await link.fetch())[1] == content


@pytest.mark.parametrize(("whole", "size"), [("20", 20), ("*", None)])
@in_loop
async def test_a_partial_response_has_its_span(whole: str, size: int | None) -> None:
    async with line(lambda _: reply(206, ("Content-Range", f"bytes 2-6/{whole}"), body=PART)) as link:
        metadata, content = await link.fetch(byte_range=ByteRange(2, 6))
        assert (metadata.span, metadata.whole_size, metadata.size, content) == (Span(2, 7), size, 5, PART)
        assert link.server.heard[0].header("Range") == "bytes=2-6"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Content-Range", "bytes */20"),),
        (("Content-Range", "items 2-6/20"),),
        (("Content-Range", "bytes 2-/20"),),
        (("Content-Range", "2-6/20"),),
        (("Content-Range", f"bytes 2-6/{'9' * 30}"),),
        (("Content-Type", "multipart/byteranges; boundary=x"),),
    ],
)
@in_loop
async def test_a_partial_response_without_a_span_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    async with line(lambda _: reply(206, *headers, body=PART)) as link:
        with pytest.raises(UpstreamBroken):
            await link.fetch(byte_range=ByteRange(2, 6))


@in_loop
async def test_content_range_of_a_whole_response_is_ignored() -> None:
    async with line(lambda _: reply(200, ("Content-Range", "bytes 0-4/20"), body=CONTENT)) as link:
        metadata, _ = await link.fetch(byte_range=ByteRange(0, 4))
        assert (metadata.span, metadata.whole_size) == (None, None)


@pytest.mark.parametrize("status", [201, 202, 204, 300, 304])
@in_loop
async def test_other_success_statuses_are_errors(status: int) -> None:
    async with line(lambda _: reply(status)) as link:
        with pytest.raises(UpstreamBroken):
            await link.fetch()


@in_loop
async def test_cookies_are_not_kept() -> None:
    async with line(lambda _: reply(200, ("Set-Cookie", "session=1; Path=/"), body=CONTENT)) as link:
        for _ in range(2):
            await link.fetch()
        assert [heard.header("Cookie") for heard in link.server.heard] == [None, None]


@in_loop
async def test_parallel_fetches_do_not_mix() -> None:
    def script(heard: Heard) -> Say:
        return reply(body=heard.target.encode())

    async with line(script) as link:
        kinds = ["manifest", "blob", "tags", "catalog", "referrers"] * 5
        bodies = await asyncio.gather(*(link.fetch(kind) for kind in kinds))
        words = {"manifest": b"manifests", "blob": b"blobs", "tags": b"tags", "catalog": b"_catalog"}
        for kind, (_, body) in zip(kinds, bodies, strict=True):
            assert words.get(kind, b"referrers") in body


@pytest.mark.parametrize(
    ("status", "result"),
    [(200, "ok"), (401, "challenged"), (404, "refused"), (429, "throttled"), (503, "failed")],
)
@in_loop
async def test_each_exchange_is_measured_by_kind_and_result(status: int, result: str) -> None:
    async with line(lambda _: reply(status, body=CONTENT)) as link:
        with suppress(RegistryError):
            await link.fetch("manifest")
        (measured,) = link.parts.measured.events
    assert measured == UpstreamAnswered(link.upstream.url, "manifest", result, measured.seconds)
    assert 0 < measured.seconds < 5


@in_loop
async def test_an_exchange_without_a_response_is_measured_as_failed() -> None:
    async with line(lambda _: Say(then="close")) as link:
        with suppress(RegistryError):
            await link.ping()
        measured = link.parts.measured.events
    assert {(one.kind, one.result) for one in measured} == {("ping", "failed")}


@in_loop
async def test_the_target_of_a_redirect_is_measured_as_storage() -> None:
    async with WireServer(lambda _: reply(body=CONTENT)) as storage:
        away = ("Location", f"{storage.url}/signed")
        async with line(lambda _: reply(307, away)) as link:
            await link.fetch("blob")
            kinds = [(one.kind, one.result) for one in link.parts.measured.events]
    assert kinds == [("blob", "ok"), ("storage", "ok")]


@in_loop
async def test_the_id_and_the_trace_of_the_request_are_sent_to_the_upstream_and_not_to_its_storage() -> None:
    """A storage host is often another company's, and would learn which requests belong together."""
    parent, names = (
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ("X-Request-ID", "traceparent", "tracestate"),
    )
    begin_record("mine")
    work_for(UntracedSpan(TraceContext.parse([parent], ["team=1"])))
    async with WireServer(lambda _: reply(body=CONTENT)) as storage:
        away = ("Location", f"{storage.url}/signed")
        async with line(lambda _: reply(307, away)) as link:
            asked = UpstreamRequest(resources(link.upstream)["blob"], ForwardedCredentials())
            async with link.parts.registry.open(asked) as answer:
                target = answer.target
            # At once at the address that is known now.
            async with link.parts.registry.open(replace(asked, target=target)) as answer:
                assert await answer.read(1000) == CONTENT
            sent = [[heard.lines(name) for name in names] for heard in link.server.heard]
    assert sent == [[["mine"], [parent], ["team=1"]]]
    assert [[heard.lines(name) for name in names] for heard in storage.heard] == [[[], [], []]] * 2
