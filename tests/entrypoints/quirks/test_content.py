"""Manifests and blobs of registries that redirect, refuse HEAD, leave headers out or send pages instead of errors."""

import gzip

import pytest

from domain.digest import Digest
from domain.manifests import MANIFEST_MEDIA_TYPES
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply
from tests.entrypoints.quirks.conftest import Behind
from tests.entrypoints.quirks.odd_registry import (
    BLOB,
    BLOB_PATH,
    IMAGE,
    JSON,
    MANIFEST,
    TAG_PATH,
    TAGS_PATH,
    code_of,
    error,
    part_of,
)

AS_ANONYMOUS = {"upstream_identity": "anonymous"}
SIGNED = "/bucket/a%2Fb%3Ac?X-Amz-Credential=AK%2F2026%2Fs3&sig=a%2Bb%3D%3D&t=10%3A20%7E"
FOREVER = ("Cache-Control", "public, max-age=31536000")


def to(location: str, status: int = 307) -> Say:
    return reply(status, ("Location", location), FOREVER, body=b"<a href='there'>Moved</a>")


async def test_redirect_of_a_manifest_is_followed(mirror: Behind) -> None:
    """registry.k8s.io redirects manifest requests to another registry with another path."""

    def regional(heard: Heard) -> Say | None:
        if heard.target.startswith("/v2/images/"):
            return reply(
                200, ("Content-Type", IMAGE), ("Docker-Content-Digest", str(Digest.of(MANIFEST))), body=MANIFEST
            )
        return to(heard.target.replace("/v2/", "/v2/images/")) if "/manifests/" in heard.target else None

    behind = await mirror(regional)
    for method in ("GET", "HEAD"):
        answer = await behind.ask(TAG_PATH, method=method)
        assert answer.status == 200
        assert (answer.get("docker-content-digest"), answer.get("content-type")) == (str(Digest.of(MANIFEST)), IMAGE)
        assert answer.get("location") is None
    assert [one.target for one in behind.registry.heard("/manifests/")][:2] == [
        TAG_PATH,
        TAG_PATH.replace("/v2/", "/v2/images/"),
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
@pytest.mark.parametrize("settings", [{}, AS_ANONYMOUS])
@pytest.mark.parametrize("bearer", [None, "aws"])
async def test_refused_head_of_a_blob_is_followed_by_a_get_of_one_byte(
    mirror: Behind, status: int, settings: dict[str, object], bearer: str | None
) -> None:
    """public.ecr.aws refuses HEAD with 401."""

    def script(heard: Heard) -> Say | None:
        is_head = heard.method == "HEAD" and "/blobs/" in heard.target
        challenge = [("WWW-Authenticate", bearing)] if status == 401 and bearing else []
        return error(status, "UNSUPPORTED", *challenge) if is_head else None

    behind = await mirror(script, bearer=bearer, **settings)
    bearing = behind.registry.challenge
    token = await behind.log_in("service=odd&scope=aws") if bearer and not settings else None
    answer = await behind.ask(BLOB_PATH, token, method="HEAD")
    assert (answer.status, answer.get("content-length")) == (200, str(len(BLOB)))
    last = behind.registry.heard("/blobs/")[-1]
    assert (last.method, last.header("Range")) == ("GET", "bytes=0-0")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_missing_digest_header_is_computed_from_the_manifest(mirror: Behind, method: str) -> None:
    said = reply(200, ("Content-Type", IMAGE), body=MANIFEST)
    behind = await mirror(lambda heard: said if "/manifests/" in heard.target else None)
    answer = await behind.ask(TAG_PATH, method=method)
    assert (answer.status, answer.get("docker-content-digest")) == (200, str(Digest.of(MANIFEST)))
    assert answer.get("content-length") == str(len(MANIFEST))


async def test_missing_length_header_is_computed_from_the_manifest(mirror: Behind) -> None:
    """Artifactory and ECR sometimes send no Content-Length."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {IMAGE}\r\nConnection: close\r\n\r\n".encode()
    behind = await mirror(lambda heard: Say(head + MANIFEST, "close") if "/manifests/" in heard.target else None)
    for method in ("GET", "HEAD"):
        assert (await behind.ask(TAG_PATH, method=method)).get("content-length") == str(len(MANIFEST))


async def test_redirect_to_a_location_of_sixty_kilobytes_is_followed(mirror: Behind) -> None:
    long = f"/stored?token={'x' * 60_000}"

    def script(heard: Heard) -> Say | None:
        if heard.target.startswith("/stored"):
            return part_of(BLOB, heard)
        return to(long) if "/blobs/" in heard.target else None

    behind = await mirror(script)
    assert (await behind.ask(BLOB_PATH)).body == BLOB
    assert behind.registry.server.heard[-1].target == long


async def test_signed_location_is_requested_unchanged_and_without_credentials(mirror: Behind) -> None:
    """The storage refuses a URL that was quoted a second time, and an Authorization in addition to the signature."""

    def bucket(heard: Heard) -> Say:
        is_right = heard.target == SIGNED and heard.header("Authorization") is None
        return part_of(BLOB, heard) if is_right else reply(400, body=b"<Error>Only one auth mechanism allowed</Error>")

    async with WireServer(bucket) as storage:
        behind = await mirror(
            lambda heard: (
                to(storage.url + SIGNED) if heard.header("Authorization") and "/blobs/" in heard.target else None
            ),
            bearer="",
            **AS_ANONYMOUS,
        )
        assert (await behind.ask(BLOB_PATH)).body == BLOB
        assert behind.registry.shown("/blobs/") == [None, "Bearer t1"]
        assert [one.header("Authorization") for one in storage.heard] == [None]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_is_never_cached(mirror: Behind, status: int) -> None:
    """quay.io allows caching its redirects for a year, but the signature in them expires after minutes."""
    signed: list[str] = []

    def script(heard: Heard) -> Say | None:
        if heard.target.startswith("/stored"):
            return part_of(BLOB, heard) if heard.target == signed[-1] else reply(403, body=b"<Error>expired</Error>")
        if "/blobs/" not in heard.target:
            return None
        signed.append(f"/stored?signature={len(signed)}")
        return to(signed[-1], status)

    behind = await mirror(script)
    for _ in range(2):
        assert (await behind.ask(BLOB_PATH)).body == BLOB
    assert len(behind.registry.heard("/blobs/")) == 2
    assert [one.target for one in behind.registry.heard("/stored")] == signed


PAGES = [
    (("Content-Type", "application/xml"), b"<?xml version='1.0'?><Error><Code>BlobNotFound</Code></Error>"),
    (("Content-Type", "text/html"), b"<html><script>alert(1)</script></html>"),
    (("Content-Type", "text/plain"), b"no such thing"),
    (JSON, b'{"message":"of another kind"}'),
    (JSON, b""),
]


ERRORS = {404: (404, ""), 403: (403, "DENIED"), 400: (400, "UNSUPPORTED"), 500: (502, "UNAVAILABLE")}
UNKNOWN = {TAG_PATH: "MANIFEST_UNKNOWN", BLOB_PATH: "BLOB_UNKNOWN", TAGS_PATH: "NAME_UNKNOWN"}


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize(("kind", "body"), PAGES)
@pytest.mark.parametrize("path", [TAG_PATH, BLOB_PATH, TAGS_PATH])
async def test_error_page_of_any_kind_becomes_an_oci_error(
    mirror: Behind, path: str, kind: tuple[str, str], body: bytes, status: int
) -> None:
    said = reply(status, kind, body=body)
    behind = await mirror(lambda heard: said if heard.target == path else None)
    refused = await behind.ask(path)
    expected, code = ERRORS[status]
    assert (refused.status, code_of(refused)) == (expected, code or UNKNOWN[path])
    assert not body or body not in refused.body


async def test_manifest_and_list_encoded_with_gzip_are_decoded(mirror: Behind) -> None:
    def script(heard: Heard) -> Say | None:
        coded = ("Content-Encoding", "gzip")
        if "/manifests/" in heard.target:
            return reply(200, ("Content-Type", IMAGE), coded, body=gzip.compress(MANIFEST))
        return reply(200, JSON, coded, body=gzip.compress(b'{"tags":["v1"]}')) if "/tags/" in heard.target else None

    behind = await mirror(script)
    for method in ("GET", "HEAD"):
        answer = await behind.ask(TAG_PATH, method=method)
        assert (answer.status, answer.get("content-encoding")) == (200, None)
        assert answer.get("docker-content-digest") == str(Digest.of(MANIFEST))
        assert answer.get("content-length") == str(len(MANIFEST))
    assert (await behind.ask(TAG_PATH)).body == MANIFEST
    assert b'["v1"]' in (await behind.ask(TAGS_PATH)).body


async def test_blob_encoded_with_gzip_is_refused_at_once(mirror: Behind) -> None:
    """It is undefined whether the digest and the ranges refer to the encoded or to the decoded bytes."""
    said = reply(200, ("Content-Encoding", "gzip"), body=gzip.compress(BLOB))
    behind = await mirror(lambda heard: said if "/blobs/" in heard.target else None)
    refused = await behind.ask(BLOB_PATH)
    assert (refused.status, code_of(refused)) == (502, "UNAVAILABLE")


async def test_requests_ask_for_identity_encoding_and_all_manifest_types(mirror: Behind) -> None:
    """Without an Accept header some registries send the withdrawn manifest schema 1."""
    behind = await mirror()
    for path in (TAG_PATH, BLOB_PATH, TAGS_PATH):
        assert (await behind.ask(path)).status == 200
    asked = behind.registry.heard("/team/app/")
    assert [one.lines("Accept-Encoding") for one in asked] == [["identity"]] * 3
    assert asked[0].lines("Accept") == [", ".join(MANIFEST_MEDIA_TYPES)]
