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


def test_an_account_opens_with_its_own_password() -> None:
    assert policy.authenticate(Credentials("alice", "sesame")) == Account("alice")
    assert policy.authenticate(Credentials("alice", "Sesame")) is None
    assert policy.authenticate(Credentials("bob", "sesame")) is None


def test_a_token_does_not_outlive_its_account() -> None:
    assert policy.stamp("alice")
    assert not policy.stamp("mallory")


def test_anonymity_is_never_an_account() -> None:
    nameless = AccountPolicy(FixedAccountDirectory([Credentials(ANONYMOUS, "x")], b"key"))
    assert not nameless.stamp(ANONYMOUS)
    assert not policy.stamp(ANONYMOUS)


def test_a_pull_is_permitted_as_asked() -> None:
    assert permitted("repository:a/b:pull") == "repository:a/b:pull"


def test_a_push_is_reduced_to_its_pull() -> None:
    assert permitted("repository:a:push,pull,delete") == "repository:a:pull"
    assert permitted("repository:a:*") == "repository:a:pull"


def test_a_listing_is_permitted_as_asked() -> None:
    assert permitted("registry:catalog:*") == "registry:catalog:*"


def test_what_a_mirror_does_not_give_is_dropped() -> None:
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


def test_unknown_scopes_leave_the_others_alone() -> None:
    assert permitted("aws repository:a:pull what:ever:pull") == "repository:a:pull"


def test_equal_answers_are_given_once() -> None:
    assert permitted("repository:a:pull,push repository:a:pull") == "repository:a:pull"


def test_the_bare_word_repository_is_dropped() -> None:
    assert not permitted("repository")


def test_a_catalog_of_another_class_is_dropped() -> None:
    assert not permitted("registry(other):catalog:*")


def test_a_catalog_search_is_permitted_no_wider() -> None:
    assert permitted("registry:catalog:search,pull") == "registry:catalog:search"


@given(st.lists(scopes | listings, max_size=5))
def test_the_answer_is_a_subset_of_the_question(wanted: list[Scope]) -> None:
    for scope in policy.permit(ScopeSet.of(wanted)):
        assert any(asked.covers(scope) for asked in wanted)
