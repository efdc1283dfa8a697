import json

import pytest

from domain.digest import Digest
from domain.errors import UpstreamBroken
from domain.manifests import (
    MANIFEST_MEDIA_TYPES,
    check_manifest,
    identifies_manifest,
    stated_media_type,
    without_parameters,
)

IMAGE, INDEX = MANIFEST_MEDIA_TYPES[:2]
OTHER = Digest.of(b"other")


@pytest.mark.parametrize(
    ("media_type", "document"),
    [
        (IMAGE, {"config": {}, "layers": []}),
        (IMAGE, {"mediaType": IMAGE, "config": {}, "layers": []}),
        (INDEX, {"mediaType": INDEX, "manifests": []}),
        (IMAGE, {"mediaType": "", "layers": []}),
        (IMAGE, {"mediaType": None, "layers": []}),
        ("application/x-other", {"mediaType": "application/x-other", "anything": 1}),
        ("application/x-other", {"schemaVersion": 3}),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {"schemaVersion": 1, "fsLayers": []}),
        ("text/plain", {"schemaVersion": 1, "fsLayers": []}),
        ("text/plain; charset=utf-8", {"schemaVersion": 1, "name": "app"}),
        ("application/json", {"fsLayers": []}),
        ("application/octet-stream", {"schemaVersion": 2, "layers": [], "config": {"mediaType": "text/x-artifact"}}),
        (
            "application/vnd.oci.artifact.manifest.v1+json",
            {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []},
        ),
    ],
)
def test_a_manifest_with_one_meaning_passes(media_type: str, document: object) -> None:
    check_manifest(media_type, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("media_type", "document"),
    [
        (IMAGE, {"mediaType": INDEX, "layers": []}),
        (INDEX, {"mediaType": IMAGE, "manifests": []}),
        ("application/x-other", {"mediaType": IMAGE}),
        (INDEX, {"manifests": [], "layers": []}),
        (INDEX, {"manifests": [], "config": {}}),
        (IMAGE, {"manifests": [], "layers": []}),
        (IMAGE, []),
        (INDEX, "text"),
    ],
)
def test_a_manifest_with_two_meanings_is_refused(media_type: str, document: object) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, json.dumps(document).encode())


ANY_TYPE = [IMAGE, INDEX, "text/html", "text/plain", "application/json", "application/x-other", ""]


@pytest.mark.parametrize("media_type", ANY_TYPE)
@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe", b"{", b"{}{}", b"[]", b"null", b'"text"'])
def test_content_that_is_not_a_json_object_is_not_a_manifest(media_type: str, content: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, content)


@pytest.mark.parametrize("media_type", ANY_TYPE)
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"errors": [{"code": "DENIED"}]},
        {"message": "log in first", "config": {}},
        {"schemaVersion": True},
        {"schemaVersion": "2"},
        {"layers": "none"},
        {"name": "app", "tags": []},
        {"mediaType": ""},
    ],
)
def test_other_json_is_not_a_manifest(media_type: str, document: object) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, json.dumps(document).encode())


@pytest.mark.parametrize("media_type", ["text/html", "TEXT/HTML; charset=utf-8", "application/xhtml+xml"])
def test_a_web_page_is_never_a_manifest(media_type: str) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, b'{"schemaVersion":1,"fsLayers":[]}')


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"mediaType": "application/x-other"}, "application/x-other"),
        ({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+json"),
        ({"schemaVersion": 1, "signatures": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({"schemaVersion": 2, "manifests": []}, INDEX),
        ({"schemaVersion": 2, "config": {}, "layers": []}, IMAGE),
    ],
)
def test_a_manifest_without_a_content_type_says_what_it_is(document: object, media_type: str) -> None:
    assert stated_media_type(json.dumps(document).encode()) == media_type


def test_a_manifest_without_any_media_type_is_refused() -> None:
    with pytest.raises(UpstreamBroken):
        stated_media_type(b'{"schemaVersion":2}')


@pytest.mark.parametrize(
    ("media_type", "digest", "is_believed"),
    [
        (IMAGE, None, True),
        ("application/x-other", None, True),
        ("text/plain", None, False),
        ("text/plain; charset=utf-8", OTHER, True),
        ("application/json", None, False),
        (None, None, False),
        (None, OTHER, True),
        ("text/html", None, False),
        ("Text/HTML; charset=utf-8", OTHER, False),
    ],
)
def test_a_response_head_identifies_a_manifest_by_its_type_or_its_digest(
    media_type: str | None, digest: Digest | None, *, is_believed: bool
) -> None:
    assert identifies_manifest(media_type, digest) is is_believed


def test_a_manifest_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(IMAGE, b"[" * 100_000)


@pytest.mark.parametrize("stated", [IMAGE, IMAGE.upper(), f"{IMAGE.title()} ; charset=utf-8"])
@pytest.mark.parametrize("header", [IMAGE, IMAGE.upper(), f"{IMAGE.title()};charset=utf-8"])
def test_media_types_are_compared_without_regard_to_case(header: str, stated: str) -> None:
    check_manifest(header, json.dumps({"mediaType": stated, "layers": []}).encode())


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (f"{IMAGE.upper()} ; charset=utf-8", IMAGE),
        ("application/vnd.Other+json;a=b", "application/vnd.Other+json"),
        (";a=b", None),
        (None, None),
    ],
)
def test_a_media_type_is_sent_without_parameters(header: str | None, sent: str | None) -> None:
    assert without_parameters(header) == sent
