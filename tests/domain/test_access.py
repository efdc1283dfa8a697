import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.access import Credentials, Scope, ScopeSet
from domain.errors import ScopeInvalid
from domain.names import RepositoryName
from tests.domain.strategies import names, opaque_scopes, plain_scopes, scopes

# Few enough to meet each other often.
_few = st.builds(
    Scope,
    st.sampled_from(["repository", "registry"]),
    st.sampled_from(["a", "a/b", "catalog"]),
    st.frozensets(st.sampled_from(["pull", "push", "*"])),
    st.sampled_from(["", "plugin"]),
)


@given(scopes)
def test_a_printed_scope_is_read_back(scope: Scope) -> None:
    assert Scope.parse(str(scope)) == scope


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("repository:library/nginx:pull", Scope("repository", "library/nginx", frozenset({"pull"}))),
        ("repository:a/b:push,pull", Scope("repository", "a/b", frozenset({"pull", "push"}))),
        ("repository:localhost:5000/a/b:pull", Scope("repository", "localhost:5000/a/b", frozenset({"pull"}))),
        (
            "repository(plugin):samalba/rexray:pull",
            Scope("repository", "samalba/rexray", frozenset({"pull"}), "plugin"),
        ),
        ("registry:catalog:*", Scope("registry", "catalog", frozenset({"*"}))),
        ("repository:a:", Scope("repository", "a")),
        ("aws", Scope("aws")),
    ],
)
def test_a_scope_is_read_between_its_outer_colons(text: str, expected: Scope) -> None:
    assert Scope.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:b",
        "a::pull",
        ":a:pull",
        "repository:a:pull,",
        "repository:a:,pull",
        "repository:a:PULL",
        "repository:a:**",
        "Repository:a:pull",
        "repository():a:pull",
        "repository(plugin:a:pull",
        "repository:a b:pull",
        'repository:a"b:pull',
        "repository:a\\b:pull",
        "repository:a:pull\n",
        "repository:é:pull",
        "repository:a:b:pull",
        "repository:a/b:c/d:pull",
        "repository:" + "a" * 1024 + ":pull",
    ],
)
def test_a_malformed_scope_is_refused(text: str) -> None:
    with pytest.raises(ScopeInvalid):
        Scope.parse(text)


@pytest.mark.parametrize(
    "text", ["repository:Upper:pull", "repository:a//b:pull", "repository(plugin):A:pull", "repository:h:5000/A:pull"]
)
def test_a_scope_of_a_malformed_name_is_refused(text: str) -> None:
    with pytest.raises(ScopeInvalid):
        Scope.parse(text)


@given(st.text() | st.text("repository:(),/*a.é \n"))
def test_any_text_is_a_scope_or_refused(text: str) -> None:
    try:
        scope = Scope.parse(text)
    except ScopeInvalid:
        return
    assert Scope.parse(str(scope)) == scope


def test_a_refusal_repeats_only_the_beginning() -> None:
    with pytest.raises(ScopeInvalid) as caught:
        Scope.parse("x" * 5000)
    assert caught.value.detail == {"scope": "x" * 1024}


@given(names)
def test_a_pull_scope_names_its_repository(name: str) -> None:
    scope = Scope.pull(RepositoryName(name))
    assert str(scope) == f"repository:{name}:pull"
    assert scope.repository == RepositoryName(name)


def test_the_catalogs_scopes_are_the_known_ones() -> None:
    assert str(Scope.catalog()) == "registry:catalog:*"
    assert str(Scope.search()) == "registry:catalog:search"


@pytest.mark.parametrize(
    "text", ["aws", "registry:catalog:*", "repository(plugin):a/b:pull", "repository:localhost:5000/a:pull"]
)
def test_other_scopes_name_no_plain_repository(text: str) -> None:
    assert Scope.parse(text).repository is None


def test_the_bare_word_repository_names_none() -> None:
    assert Scope.parse("repository").repository is None


@given(scopes)
def test_a_scope_always_covers_itself(scope: Scope) -> None:
    assert scope.covers(scope)


@given(_few, _few)
def test_a_scope_covers_nothing_wider(granted: Scope, needed: Scope) -> None:
    same_resource = str(granted).rpartition(":")[0] == str(needed).rpartition(":")[0]
    enough = "*" in granted.actions or not needed.actions - granted.actions
    assert granted.covers(needed) == (same_resource and enough)


@given(_few, _few, _few)
def test_covering_passes_from_scope_to_scope(one: Scope, two: Scope, three: Scope) -> None:
    if one.covers(two) and two.covers(three):
        assert one.covers(three)


@given(opaque_scopes, plain_scopes)
def test_an_opaque_scope_covers_no_repository(opaque: Scope, plain: Scope) -> None:
    assert opaque.is_opaque
    assert not opaque.covers(plain)
    assert not plain.covers(opaque)


@given(st.lists(scopes, max_size=5))
def test_a_printed_set_is_read_back(several: list[Scope]) -> None:
    wanted = ScopeSet.of(several)
    assert ScopeSet.parse([str(wanted)]) == wanted
    assert ScopeSet.parse(map(str, several)) == wanted


def test_a_set_is_distinct_and_in_order() -> None:
    wanted = ScopeSet.parse(["repository:b:pull repository:a:pull", "", "repository:b:pull  aws"])
    assert [str(scope) for scope in wanted] == ["repository:b:pull", "repository:a:pull", "aws"]


@given(st.lists(_few, max_size=4), _few)
def test_a_set_covers_what_one_scope_covers(several: list[Scope], needed: Scope) -> None:
    assert ScopeSet.of(several).cover(needed) == any(scope.covers(needed) for scope in several)


def test_two_scopes_do_not_add_up_to_one() -> None:
    granted = ScopeSet.parse(["repository:a:pull", "repository:a:push"])
    assert not granted.cover(Scope.parse("repository:a:pull,push"))


def test_an_empty_set_is_false_and_covers_nothing() -> None:
    assert not ScopeSet.parse(["", " "])
    assert not ScopeSet().cover(Scope.catalog())


def test_a_set_has_64_scopes_at_most() -> None:
    words = [f"repository:a{number}:pull" for number in range(65)]
    assert len(ScopeSet.parse(words[:64])) == 64
    with pytest.raises(ScopeInvalid):
        ScopeSet.parse([" ".join(words)])


def test_one_malformed_scope_refuses_the_set() -> None:
    with pytest.raises(ScopeInvalid):
        ScopeSet.parse(["repository:a:pull repository:"])


def test_credentials_never_print_their_password() -> None:
    printed = f"{Credentials('alice', 'sesame')!r} {Credentials('alice', 'sesame')}"
    assert "alice" in printed
    assert "sesame" not in printed
