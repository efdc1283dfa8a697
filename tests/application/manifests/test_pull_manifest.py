"""Manifests: the bytes of the upstream, hashed, or nothing."""

from dataclasses import replace

import pytest

from domain.digest import Digest
from domain.errors import ManifestUnknown, UpstreamBroken, UpstreamTimedOut
from domain.events import DigestMismatch
from domain.manifests import MANIFEST_LIMIT, MANIFEST_MEDIA_TYPES
from domain.names import RepositoryName
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE, NAME, Service, stocked
from tests.fakes.upstream import FakeAnswer

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LIST_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
OTHER = Digest.of(b"something else")


def saying(service: Service, **changes: object) -> Service:
    """The same upstream, whose answers bear other headers."""

    def alter(answer: FakeAnswer) -> FakeAnswer:
        return replace(answer, metadata=replace(answer.metadata, **changes))

    service.upstream.alter = alter
    return service


def silent_on_head(service: Service, field: str) -> Service:
    """An upstream that leaves one header out, but only where it is asked by HEAD."""

    def alter(answer: FakeAnswer) -> FakeAnswer:
        head = service.upstream.asked[-1].head
        return replace(answer, metadata=replace(answer.metadata, **{field: None})) if head else answer

    service.upstream.alter = alter
    return service


def heads(service: Service) -> list[bool]:
    return [fetch.head for fetch in service.upstream.asked]


@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_manifest_comes_byte_for_byte_with_its_facts(reference: str) -> None:
    service = Service(stocked("none"))
    answer = service.run(service.manifest(reference=reference))
    assert (answer.content, answer.media_type) == (IMAGE_CONTENT, IMAGE_TYPE)
    assert (answer.digest, answer.size) == (IMAGE_DIGEST, len(IMAGE_CONTENT))
    assert heads(service) == [False]


@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_head_asks_for_nothing_but_a_head(reference: str) -> None:
    service = Service(stocked("none"))
    answer = service.run(service.manifest(reference=reference, head=True))
    assert (answer.content, answer.media_type, answer.size) == (None, IMAGE_TYPE, len(IMAGE_CONTENT))
    assert answer.digest == IMAGE_DIGEST
    assert heads(service) == [True]


@pytest.mark.parametrize("field", ["digest", "media_type", "size"])
def test_head_that_lacks_a_fact_is_completed_by_get(field: str) -> None:
    service = silent_on_head(Service(stocked("none")), field)
    answer = service.run(service.manifest(head=True))
    assert (answer.content, answer.media_type, answer.size) == (None, IMAGE_TYPE, len(IMAGE_CONTENT))
    assert answer.digest == IMAGE_DIGEST
    assert heads(service) == [True, False]


def test_head_by_digest_needs_no_digest_header() -> None:
    service = saying(Service(stocked("none")), digest=None)
    assert service.run(service.manifest(reference=str(IMAGE_DIGEST), head=True)).digest == IMAGE_DIGEST
    assert heads(service) == [True]


def test_a_digest_that_is_not_stated_is_computed() -> None:
    service = saying(Service(stocked("none")), digest=None)
    assert service.run(service.manifest()).digest == IMAGE_DIGEST


@pytest.mark.parametrize("reference", ["1", str(IMAGE_DIGEST)])
def test_manifest_is_read_though_its_length_is_unknown(reference: str) -> None:
    service = saying(Service(stocked("none")), size=None)
    assert service.run(service.manifest(reference=reference)).size == len(IMAGE_CONTENT)


def test_known_digest_costs_a_head_and_no_get() -> None:
    service = Service(stocked("none"))
    answer = service.run(service.manifest(known=frozenset({str(IMAGE_DIGEST)})))
    assert (answer.content, answer.digest) == (None, IMAGE_DIGEST)
    assert heads(service) == [True]


def test_changed_tag_is_fetched_after_the_head() -> None:
    service = Service(stocked("none"))
    answer = service.run(service.manifest(known=frozenset({str(OTHER), "no digest at all"})))
    assert answer.content == IMAGE_CONTENT
    assert heads(service) == [True, False]


def test_wrong_bytes_for_a_digest_are_refused() -> None:
    service = Service(stocked("none"))
    service.upstream.manifests[str(NAME), str(OTHER)] = (IMAGE_TYPE, IMAGE_CONTENT)
    with pytest.raises(UpstreamBroken):
        service.run(service.manifest(reference=str(OTHER)))
    assert DigestMismatch("https://upstream.test", "public/app", str(OTHER)) in service.events


def test_right_header_saves_no_wrong_bytes() -> None:
    """The upstream claims the digest that was asked, and sends something else."""
    service = saying(Service(stocked("none")), digest=OTHER)
    service.upstream.manifests[str(NAME), str(OTHER)] = (IMAGE_TYPE, IMAGE_CONTENT)
    with pytest.raises(UpstreamBroken):
        service.run(service.manifest(reference=str(OTHER)))


def test_tag_whose_bytes_belie_the_header_is_refused() -> None:
    service = saying(Service(stocked("none")), digest=OTHER)
    with pytest.raises(UpstreamBroken):
        service.run(service.manifest())
    assert DigestMismatch("https://upstream.test", "public/app", str(OTHER)) in service.events


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_asked_algorithm_decides_and_not_the_header(algorithm: str) -> None:
    service = Service(stocked("none"))
    digest = Digest.of(IMAGE_CONTENT, algorithm)
    service.upstream.manifests[str(NAME), str(digest)] = (IMAGE_TYPE, IMAGE_CONTENT)
    assert service.run(service.manifest(reference=str(digest))).digest == digest


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        (INDEX_TYPE, IMAGE_CONTENT),
        (LIST_TYPE, IMAGE_CONTENT),
        (IMAGE_TYPE, b'{"manifests":[],"layers":[]}'),
        (INDEX_TYPE, b'{"manifests":[],"config":{}}'),
        (IMAGE_TYPE, b"[]"),
        (IMAGE_TYPE, b"<html>not here</html>"),
        (IMAGE_TYPE, b'{"layers":' + b"[" * 5000),
    ],
)
def test_ambiguous_manifest_is_refused_whatever_its_digest(media_type: str, content: bytes) -> None:
    service = Service(stocked("none"))
    digest = service.upstream.put_manifest(str(NAME), "odd", content, media_type)
    for reference in ("odd", str(digest)):
        with pytest.raises(UpstreamBroken):
            service.run(service.manifest(reference=reference))


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        (IMAGE_TYPE, b'{"schemaVersion":2,"layers":[]}'),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion":1,"fsLayers":[]}'),
        ("application/vnd.example.unheard.of.v1", b'{"schemaVersion":2,"unheard":"of"}'),
    ],
)
def test_type_that_we_do_not_know_passes(media_type: str, content: bytes) -> None:
    service = Service(stocked("none"))
    service.upstream.put_manifest(str(NAME), "odd", content, media_type)
    answer = service.run(service.manifest(reference="odd"))
    assert (answer.media_type, answer.content) == (media_type, content)


def test_parameter_of_the_type_is_no_contradiction() -> None:
    """RFC 9110 section 8.3.1: a parameter is no part of the type; docker and podman strip it before they compare."""
    service = Service(stocked("none"))
    service.upstream.put_manifest(str(NAME), "odd", IMAGE_CONTENT, f"{IMAGE_TYPE}; charset=utf-8")
    assert service.run(service.manifest(reference="odd")).content == IMAGE_CONTENT


def test_accept_lines_go_up_as_they_came() -> None:
    service = Service(stocked("none"))
    lines = (f"{IMAGE_TYPE}, {INDEX_TYPE}", "*/*")
    service.run(service.manifest(accept=lines))
    assert service.upstream.asked[0].accept == lines


def test_without_accept_all_known_types_are_requested() -> None:
    service = Service(stocked("none"))
    service.run(service.manifest())
    asked = ",".join(service.upstream.asked[0].accept)
    assert {one.strip() for one in asked.split(",")} == set(MANIFEST_MEDIA_TYPES)


def test_manifest_beyond_four_mebibytes_is_refused() -> None:
    service = Service(stocked("none"))
    service.upstream.put_manifest(str(NAME), "big", b" " * (MANIFEST_LIMIT + 1), "application/json")
    with pytest.raises(UpstreamBroken):
        service.run(service.manifest(reference="big"))


def test_body_that_breaks_off_is_no_manifest() -> None:
    service = Service(stocked("none"))
    service.upstream.alter = lambda answer: replace(answer, piece=10, cut_after=20)
    with pytest.raises(UpstreamBroken):
        service.run(service.manifest())


def test_unknown_manifest_and_lost_upstream_are_told_apart() -> None:
    service = Service(stocked("none"))
    with pytest.raises(ManifestUnknown):
        service.run(service.manifest(reference="none"))
    service.upstream.fault = UpstreamTimedOut("upstream.test did not answer in time")
    with pytest.raises(UpstreamTimedOut):
        service.run(service.manifest())


def test_warnings_of_the_upstream_come_along() -> None:
    for head in (False, True):
        service = saying(Service(stocked("none")), warnings=('299 - "old"',))
        assert service.run(service.manifest(head=head)).warnings == ('299 - "old"',)


def test_short_name_means_library_on_docker_hub() -> None:
    service = Service(stocked("none"), upstream_registry="https://registry-1.docker.io")
    service.upstream.put_manifest("library/nginx", "1", IMAGE_CONTENT)
    service.run(service.manifest(name=RepositoryName("nginx")))
    assert service.upstream.asked[0].resource.path == "library/nginx/manifests/1"
