from hypothesis import given
from hypothesis import strategies as st

from adapters.accounts.fixed import FixedAccountDirectory
from domain.access import ANONYMOUS, Account, Credentials, Scope, ScopeSet
from domain.account_policy import AccountPolicy
from tests.domain.strategies import scopes

listings = st.builds(
    Scope,
    st.just("registry"),
    st.just("catalog"),
    st.frozensets(st.sampled_from(["*", "search", "pull"])),
    st.sampled_from(["", "other"]),
)
policy = AccountPolicy(FixedAccountDirectory([Credentials("alice", "sesame"), Credentials("bob", "")], b"key"))


def permitted(*texts: str) -> str:
    return str(policy.permit(ScopeSet.parse(texts)))


def test_a_login_is_accepted_only_with_the_password_of_the_account() -> None:
    assert policy.authenticate(Credentials("alice", "sesame")) == Account("alice")
    assert policy.authenticate(Credentials("alice", "Sesame")) is None
    assert policy.authenticate(Credentials("bob", "sesame")) is None


def test_only_an_existing_account_has_a_stamp() -> None:
    assert policy.stamp("alice")
    assert not policy.stamp("mallory")


def test_the_anonymous_caller_never_has_a_stamp() -> None:
    nameless = AccountPolicy(FixedAccountDirectory([Credentials(ANONYMOUS, "x")], b"key"))
    assert not nameless.stamp(ANONYMOUS)
    assert not policy.stamp(ANONYMOUS)


def test_a_pull_scope_is_granted_unchanged() -> None:
    assert permitted("repository:a/b:pull") == "repository:a/b:pull"


def test_a_push_scope_is_reduced_to_pull() -> None:
    assert permitted("repository:a:push,pull,delete") == "repository:a:pull"
    assert permitted("repository:a:*") == "repository:a:pull"


def test_a_catalog_scope_is_granted_unchanged() -> None:
    assert permitted("registry:catalog:*") == "registry:catalog:*"


def test_scopes_that_the_mirror_never_grants_are_dropped() -> None:
    assert not permitted(
        "repository:a:push",
        "repository:a:delete",
        "repository:a:",
        "repository(plugin):a:pull",
        "repository:localhost:5000/a:pull",
        "registry:other:*",
        "registry:catalog:pull",
        "aws",
    )


def test_unknown_scopes_do_not_affect_other_scopes() -> None:
    assert permitted("aws repository:a:pull what:ever:pull") == "repository:a:pull"


def test_equal_scopes_are_granted_once() -> None:
    assert permitted("repository:a:pull,push repository:a:pull") == "repository:a:pull"


def test_the_bare_word_repository_is_dropped() -> None:
    assert not permitted("repository")


def test_a_catalog_of_another_class_is_dropped() -> None:
    assert not permitted("registry(other):catalog:*")


def test_a_search_scope_is_granted_without_the_catalog() -> None:
    assert permitted("registry:catalog:search,pull") == "registry:catalog:search"


@given(st.lists(scopes | listings, max_size=5))
def test_the_granted_scopes_are_covered_by_the_requested_scopes(wanted: list[Scope]) -> None:
    for scope in policy.permit(ScopeSet.of(wanted)):
        assert any(asked.covers(scope) for asked in wanted)
