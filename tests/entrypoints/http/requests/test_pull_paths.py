"""What a path under /v2/ names, and that nothing outside the grammar names anything."""

import re
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.digest import Digest
from domain.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    PathUnknown,
    RegistryError,
)
from entrypoints.http.requests.pull_paths import BlobPath, ManifestPath, ReferrersPath, TagsPath, parse_pull_path

SHA = "sha256:" + "0a" * 32

# Written out here once more, and not imported: the test is to notice when the source's grammar changes.
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = rf"{COMPONENT}(?:/{COMPONENT})*"
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
DIGEST = r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})"
WHOLE = re.compile(rf"{NAME}/(?:manifests/(?:{TAG}|{DIGEST})|blobs/{DIGEST}|referrers/{DIGEST}|tags/list)", re.ASCII)

words = st.sampled_from(["manifests", "blobs", "tags", "list", "referrers", "v2", "uploads", "_catalog"])
runs = st.text("az09", min_size=1, max_size=3)
joints = st.sampled_from([".", "_", "__", "-", "---"])
components = st.one_of(runs, words, st.builds("{}{}{}".format, runs, joints, runs))
names = st.lists(components.filter(lambda text: text != "_catalog"), min_size=1, max_size=5).map("/".join)
tags = st.builds("{}{}".format, st.sampled_from("aZ9_"), st.text("aZ9_.-", max_size=6))
digests = st.sampled_from([str(Digest.of(b"", kind)) for kind in ("sha256", "sha384", "sha512")])
endings = st.one_of(
    tags.map("manifests/{}".format),
    digests.map("manifests/{}".format),
    digests.map("blobs/{}".format),
    digests.map("referrers/{}".format),
    st.just("tags/list"),
)
separators = st.sampled_from(
    ["/", "%2F", "%2f", "//", "/./", "/../", ":", "%3A", "%00", "%0d%0a", "%252F", "\\", "?", ""]
)
odd = st.one_of(st.text(max_size=12), words, tags, digests, separators)


@given(names, endings)
def test_whatever_the_grammar_allows_is_parsed(name: str, ending: str) -> None:
    parsed = parse_pull_path(f"{name}/{ending}")
    assert str(parsed.name) == name
    match parsed:
        case ManifestPath():
            assert f"manifests/{parsed.reference}" == ending
        case BlobPath():
            assert f"blobs/{parsed.digest}" == ending
        case ReferrersPath():
            assert f"referrers/{parsed.digest}" == ending
        case TagsPath():
            assert ending == "tags/list"


@given(names, endings)
def test_escapes_change_nothing_but_the_spelling(name: str, ending: str) -> None:
    path = f"{name}/{ending}"
    everything = "".join(f"%{byte:02x}" for byte in path.encode())
    assert parse_pull_path(quote(path, safe="")) == parse_pull_path(everything) == parse_pull_path(path)


@given(st.one_of(st.text(max_size=80), st.lists(odd, max_size=8).map("".join)))
@example("a/manifests/v1\n")
@example("a/tags/list\n")
@example(f"a/blobs/{SHA}\n")
@example("a/manifests/v1%0A")
@example("é/manifests/v1")
@example("a/manifests/v\u0661")
@example("a/blobs/sha256:" + "\uff10" * 64)
def test_nothing_outside_the_grammar_ever_parses(path: str) -> None:
    try:
        parse_pull_path(path)
    except RegistryError:
        return
    assert WHOLE.fullmatch(unquote(path))


@given(names, endings, separators, st.data())
def test_grammar_decides_after_any_insertion(name: str, ending: str, inserted: str, data: st.DataObject) -> None:
    path = f"{name}/{ending}"
    place = data.draw(st.integers(0, len(path)))
    test_nothing_outside_the_grammar_ever_parses.hypothesis.inner_test(path[:place] + inserted + path[place:])


def test_name_goes_as_far_as_it_can() -> None:
    deep = parse_pull_path("manifests/v1/blobs/tags/list/manifests/latest")
    assert isinstance(deep, ManifestPath)
    assert (str(deep.name), str(deep.reference)) == ("manifests/v1/blobs/tags/list", "latest")
    assert parse_pull_path("tags/list/tags/list") == parse_pull_path("tags%2Flist%2Ftags%2Flist")


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("/manifests/v1", NameInvalid),
        ("a/../b/manifests/v1", NameInvalid),
        ("%2e%2e/manifests/v1", NameInvalid),
        ("a%252fb/manifests/v1", NameInvalid),
        ("a%00/manifests/v1", NameInvalid),
        ("a\x00/tags/list", NameInvalid),
        ("a%0d%0a/tags/list", NameInvalid),
        ("a\r\n/tags/list", NameInvalid),
        ("a%ff/tags/list", NameInvalid),
        ("A/tags/list", NameInvalid),
        ("a__/tags/list", NameInvalid),
        ("a___b/tags/list", NameInvalid),
        ("a..b/tags/list", NameInvalid),
        (f"{'a' * 256}/tags/list", NameInvalid),
        ("a/manifests/", ManifestUnknown),
        ("a/manifests/.v1", ManifestUnknown),
        ("a/manifests/v1%2500", ManifestUnknown),
        ("a/manifests/%2e%2e", ManifestUnknown),
        ("a/manifests/host:tag", ManifestUnknown),
        (f"a/manifests/{SHA}%20", ManifestUnknown),
        (f"a/blobs/{SHA[:-1]}", BlobUnknown),
        (f"a/blobs/{SHA.upper()}", BlobUnknown),
        ("a/referrers/latest", DigestInvalid),
        (f"a/referrers/{SHA}/", PathUnknown),
        ("a/tags/list/", PathUnknown),
        ("a/tags/other", PathUnknown),
        ("manifests/v1", PathUnknown),
        ("tags/list", PathUnknown),
        ("", PathUnknown),
        ("/", PathUnknown),
        ("a", PathUnknown),
    ],
)
def test_each_malformed_part_has_its_refusal(path: str, refusal: type[RegistryError]) -> None:
    with pytest.raises(refusal):
        parse_pull_path(path)


def test_longest_name_of_the_grammar_parses() -> None:
    assert str(parse_pull_path(f"{'a' * 255}/tags/list").name) == "a" * 255
