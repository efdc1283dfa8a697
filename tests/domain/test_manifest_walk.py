"""Descriptors in manifests, and the walk over them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.digest import Digest
from domain.manifests import DEPTH_LIMIT, MANIFESTS_LIMIT, Descriptor, ManifestWalk, descriptors_of

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))
WORDS = ("manifests", "layers", "config", "fsLayers", "digest", "blobSum", "size", "platform", "os", "urls")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(str(A)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def named(**document: object) -> tuple[Descriptor, ...]:
    return descriptors_of(json.dumps(document).encode())


def entry(digest: Digest, size: object = 1, **others: object) -> dict[str, object]:
    return {"digest": str(digest), "size": size, **others}


def test_an_image_names_its_config_and_layers_in_order() -> None:
    assert named(config=entry(A, 5), layers=[entry(B, 6), entry(C, 7)]) == (
        Descriptor(A, 5, is_manifest=False),
        Descriptor(B, 6, is_manifest=False),
        Descriptor(C, 7, is_manifest=False),
    )


def test_an_index_names_manifests_and_their_platforms() -> None:
    arm = entry(A, platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    amd = entry(B, platform={"os": "linux", "architecture": "amd64", "os.version": "1"})
    assert named(manifests=[arm, amd, entry(C)]) == (
        Descriptor(A, 1, True, "linux/arm64/v8"),
        Descriptor(B, 1, True, "linux/amd64"),
        Descriptor(C, 1, True, None),
    )


def test_the_withdrawn_schema_1_names_layers_without_sizes() -> None:
    assert named(fsLayers=[{"blobSum": str(A)}, {"blobSum": 1}]) == (Descriptor(A, 0, is_manifest=False),)


def test_layers_at_external_urls_are_skipped() -> None:
    assert named(layers=[entry(A, urls=["https://elsewhere.test"]), entry(B, urls=[])]) == (
        Descriptor(B, 1, is_manifest=False),
    )


@pytest.mark.parametrize("size", [-1, "7", None, 1.5, [], {}])
def test_an_invalid_size_counts_as_zero(size: object) -> None:
    assert named(layers=[entry(A, size)]) == (Descriptor(A, 0, is_manifest=False),)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"null", b'{"layers": {}}', b'{"config": []}'])
def test_content_that_cannot_be_parsed_has_no_descriptors(content: bytes) -> None:
    assert descriptors_of(content) == ()


@given(ANYTHING)
def test_any_document_is_read_without_raising(document: object) -> None:
    for one in descriptors_of(json.dumps(document).encode()):
        assert one.digest == A
        assert one.size >= 0


def below(*digests: Digest) -> list[Descriptor]:
    return [Descriptor(digest, 1, is_manifest=True) for digest in digests]


def test_a_walk_gives_each_manifest_once() -> None:
    walk = ManifestWalk(A)
    read = []
    for digest in walk:
        read.append(digest)
        walk.add([*below(A, B, C, B), Descriptor(Digest.of(b"layer"), 1, is_manifest=False)])
    assert (read, walk.is_cut) == ([A, B, C], False)


def test_the_depth_of_a_walk_is_bounded() -> None:
    walk = ManifestWalk(A)
    for number, _ in enumerate(walk):
        walk.add(below(Digest.of(str(number).encode())))
    assert (number, walk.is_cut) == (DEPTH_LIMIT, True)


def test_the_number_of_manifests_of_a_walk_is_bounded() -> None:
    walk = ManifestWalk(A)
    children = below(*(Digest.of(str(number).encode()) for number in range(MANIFESTS_LIMIT + 5)))
    count = 0
    for _ in walk:
        walk.add(children if count < 2 else ())
        count += 1
    assert (count, walk.is_cut) == (MANIFESTS_LIMIT, True)
