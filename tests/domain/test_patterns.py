"""Name patterns: what they match, in bounded time."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.names import RepositoryName, Tag
from domain.patterns import RepositoryPattern, TagPattern
from domain.upstreams import Origin, Source, Upstream
from tests.domain.strategies import names, tags

HUB = Upstream.at("https://registry-1.docker.io", Origin("https", "registry-1.docker.io", 443))
GHCR = Upstream.at("https://ghcr.io", Origin("https", "ghcr.io", 443))
LOCAL = Upstream.at("http://localhost:5000", Origin("http", "localhost", 5000))
EACH = {"hub": HUB, "ghcr": GHCR, "local": LOCAL}

# Few letters, so that names and patterns often have something in common.
_segments = st.text("ab", min_size=1, max_size=5)
_paths = st.lists(_segments, min_size=1, max_size=6).map("/".join)
_globs = st.text("ab*", min_size=1, max_size=5).filter(lambda text: "**" not in text)
_patterns = st.lists(_globs | st.just("**"), min_size=1, max_size=5).map("/".join)


def matches(pattern: str, upstream: Upstream, name: str) -> bool:
    return RepositoryPattern(pattern).matches(Source(upstream, RepositoryName(name)))


def naively(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    """The same rules, by trying every possibility."""
    if not pattern:
        return not segments
    if pattern[0] == "**":
        return any(naively(pattern[1:], segments[at:]) for at in range(len(segments) + 1))
    return bool(segments) and naively_within(pattern[0], segments[0]) and naively(pattern[1:], segments[1:])


def naively_within(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naively_within(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return text[:1] == pattern[0] and naively_within(pattern[1:], text[1:])


@pytest.mark.parametrize(
    ("pattern", "upstream", "name", "matched"),
    [
        ("library/**", "ghcr", "library/alpine", True),
        ("docker.io/library/**", "hub", "library/alpine", True),
        ("index.docker.io/library/**", "hub", "library/alpine", True),
        ("Docker.IO/library/**", "hub", "library/alpine", True),
        ("docker.io/library/**", "ghcr", "library/alpine", False),
        ("docker.io/**", "hub", "grafana/grafana", True),
        ("ghcr.io/acme/*", "ghcr", "acme/app", True),
        ("ghcr.io/acme/*", "ghcr", "acme/team/app", False),
        ("ghcr.io/acme/**", "ghcr", "acme/team/app", True),
        ("ghcr.io/acme/**", "ghcr", "acme", True),
        ("ghcr.io/acme/**", "ghcr", "acmes/app", False),
        ("ghcr.io:443/acme/*", "ghcr", "acme/app", True),
        ("*.io/acme/*", "ghcr", "acme/app", True),
        ("*.io/acme/*", "local", "acme/app", False),
        ("localhost:5000/app", "local", "app", True),
        ("localhost:*/app", "local", "app", True),
        ("localhost/app", "local", "app", False),
        ("**", "local", "a/b/c", True),
        ("*", "local", "a/b", False),
        ("**/app", "ghcr", "app", True),
        ("**/app", "ghcr", "a/b/app", True),
        ("**/app", "ghcr", "a/b/apps", False),
        ("a/**/z", "ghcr", "a/z", True),
        ("a/**/z", "ghcr", "a/b/c/z", True),
        ("a/**/b/**/b", "ghcr", "a/b", False),
        ("a/**/b/**/b", "ghcr", "a/b/b", True),
        ("*-internal/**", "ghcr", "acme-internal/app", True),
        ("a*b*c", "ghcr", "abc", True),
        ("a*b*c", "ghcr", "ac", False),
        ("ab*ba", "ghcr", "aba", False),
    ],
)
def test_a_pattern_matches_what_it_says(pattern: str, upstream: str, name: str, matched: bool) -> None:  # noqa: FBT001 - a table
    assert matches(pattern, EACH[upstream], name) is matched


@pytest.mark.parametrize(
    ("pattern", "upstreams"),
    [("docker.io/a", ["hub"]), ("*.io/a", ["hub", "ghcr"]), ("a", ["hub", "ghcr", "local"]), ("dokcer.io/a", [])],
)
def test_a_pattern_tells_which_upstreams_it_is_for(pattern: str, upstreams: list[str]) -> None:
    assert [name for name, upstream in EACH.items() if RepositoryPattern(pattern).is_for(upstream)] == upstreams


@pytest.mark.parametrize("name", ["alpine", "library/alpine"])
@pytest.mark.parametrize("pattern", ["alpine", "library/alpine", "docker.io/alpine", "docker.io/*", "*/alpine", "al*"])
def test_an_official_image_is_the_same_with_library_and_without(pattern: str, name: str) -> None:
    assert matches(pattern, HUB, name)
    assert not matches("docker.io/*", HUB, "grafana/grafana")
    assert not matches("alpine", HUB, "grafana/alpine")
    assert not matches("library/alpine", GHCR, "alpine")
    assert not matches("alpine", GHCR, "library/alpine")


@given(_patterns, _paths)
def test_a_pattern_matches_exactly_as_a_search_of_all_possibilities(pattern: str, name: str) -> None:
    assert matches(pattern, GHCR, name) is naively(tuple(pattern.split("/")), tuple(name.split("/")))


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=12))
def test_a_tag_pattern_matches_exactly_as_a_search_of_all_possibilities(pattern: str, tag: str) -> None:
    assume("**" not in pattern)
    assert TagPattern(pattern).matches(Tag(tag)) is naively_within(pattern, tag)


@given(names)
def test_a_name_matches_itself_and_the_pattern_of_all_names(name: str) -> None:
    source = Source(LOCAL, RepositoryName(name))
    assert RepositoryPattern(f"localhost:5000/{name}").matches(source)
    assert RepositoryPattern("**").matches(source)
    assert RepositoryPattern("localhost:5000/**").matches(source)
    assert not RepositoryPattern(f"localhost:5000/{name}/more").matches(source)


@given(tags)
def test_a_tag_matches_itself_and_every_tag_the_star(tag: str) -> None:
    assert TagPattern(tag).matches(Tag(tag))
    assert TagPattern("*").matches(Tag(tag))
    assert not TagPattern(f"{tag}-").matches(Tag(tag))


@pytest.mark.parametrize(
    ("pattern", "tag", "matched"),
    [
        ("v*.*.*", "v1.2.3", True),
        ("v*.*.*", "v1.2.3-rc.1", True),
        ("v*.*.*", "v1.2", False),
        ("*-rc*", "2.0-rc1", True),
        ("latest", "Latest", False),
    ],
)
def test_a_tag_pattern_matches_the_whole_tag(pattern: str, tag: str, matched: bool) -> None:  # noqa: FBT001 - a table
    assert TagPattern(pattern).matches(Tag(tag)) is matched


def test_no_name_of_a_client_makes_matching_slow() -> None:
    """Trying every possibility for these names would take years."""
    many = RepositoryPattern("/".join(["**", "*a*a*a*a*b"] * 20))
    within = RepositoryPattern("*a" * 100 + "b")
    begun = time.perf_counter()
    assert not many.matches(Source(GHCR, RepositoryName("/".join(["aaaaa"] * 42))))
    assert not within.matches(Source(GHCR, RepositoryName("a" * 255)))
    assert not TagPattern("*a" * 60 + "b").matches(Tag("a" * 128))
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no name can match it"),
        ("/", "no name can match it"),
        ("a//b", "no name can match it"),
        ("a/", "no name can match it"),
        ("/a", "no name can match it"),
        ("Acme/app", "no name can match it"),
        ("acme/app?", "only wildcards"),
        ("acme/[ab]", "only wildcards"),
        ("acme/app:1", "no name can match it"),
        ("https://ghcr.io/acme", "no name can match it"),
        ("acme/a**", "whole segment"),
        ("***/app", "whole segment"),
        ("**.io/app", "whole segment"),
        ("docker.io", "docker.io/\\*\\* matches all"),
        ("docker.io/", "docker.io/\\*\\* matches all"),
        ("localhost", "matches all"),
        ("ghcr.io\n/app", "no name can match it"),
    ],
)
def test_a_pattern_that_matches_no_name_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RepositoryPattern(text)


@pytest.mark.parametrize("text", ["", "**", "a**", "a/b", "v?", "1 2", "tag\n"])
def test_a_pattern_that_matches_no_tag_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid pattern"):
        TagPattern(text)
