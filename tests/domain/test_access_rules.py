"""Access rules: the first rule that matches decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.access import ANONYMOUS
from domain.access_rules import AccessRule, AccessRules, Effect
from domain.names import RepositoryName
from domain.patterns import RepositoryPattern
from domain.upstreams import Origin, Source, Upstream

GHCR = Upstream.at("https://ghcr.io", Origin("https", "ghcr.io", 443))
WHO = [ANONYMOUS, "alice", "bob", "*"]
WHAT = ["acme/app", "acme/secret/app", "other/app"]

_effects = st.sampled_from(Effect)
_patterns = st.sampled_from(["**", "acme/**", "acme/secret/**", "ghcr.io/*/app", "docker.io/**"]).map(RepositoryPattern)
_rules = st.builds(
    AccessRule,
    _effects,
    st.lists(_patterns, min_size=1, max_size=2).map(tuple),
    st.lists(st.sampled_from(WHO[1:]), max_size=2).map(tuple),
)
_rule_lists = st.lists(_rules, max_size=5).map(tuple)


def allow(*patterns: str, to: tuple[str, ...] = ()) -> AccessRule:
    return AccessRule(Effect.ALLOW, tuple(map(RepositoryPattern, patterns)), to)


def deny(*patterns: str, to: tuple[str, ...] = ()) -> AccessRule:
    return AccessRule(Effect.DENY, tuple(map(RepositoryPattern, patterns)), to)


def may(rules: AccessRules, account: str, name: str) -> bool:
    return rules.may_pull(account, Source(GHCR, RepositoryName(name)))


def test_without_rules_every_caller_may_pull_every_repository() -> None:
    assert all(may(AccessRules(()), who, what) for who in WHO for what in WHAT)
    assert not AccessRules(()).restrict


def test_rules_that_only_deny_allow_everything_else() -> None:
    rules = AccessRules((deny("ghcr.io/acme/secret/**"),))
    assert [may(rules, ANONYMOUS, what) for what in WHAT] == [True, False, True]
    assert rules.restrict


def test_a_rule_that_allows_denies_everything_else() -> None:
    rules = AccessRules((allow("ghcr.io/acme/**"),))
    assert [may(rules, ANONYMOUS, what) for what in WHAT] == [True, True, False]


def test_the_first_rule_that_matches_decides() -> None:
    one, other = deny("acme/secret/**"), allow("acme/**")
    assert [may(AccessRules((one, other)), "bob", what) for what in WHAT] == [True, False, False]
    assert [may(AccessRules((other, one)), "bob", what) for what in WHAT] == [True, True, False]


def test_a_rule_may_be_for_named_accounts_only() -> None:
    rules = AccessRules((allow("acme/secret/**", to=("alice",)), deny("acme/secret/**"), allow("**")))
    assert [may(rules, who, "acme/secret/app") for who in (ANONYMOUS, "alice", "bob", "Alice")] == [
        False,
        True,
        False,
        False,
    ]
    assert all(may(rules, who, "other/app") for who in WHO)


def test_a_star_matches_every_account_but_no_anonymous_caller() -> None:
    rules = AccessRules((deny("acme/**", to=("bob",)), allow("acme/**", to=("*",))))
    assert [may(rules, who, "acme/app") for who in (ANONYMOUS, "alice", "bob")] == [False, True, False]


def test_a_fixed_default_overrides_the_derived_default() -> None:
    assert may(AccessRules((allow("acme/**"),), Effect.ALLOW), ANONYMOUS, "other/app")
    assert not may(AccessRules((deny("acme/**"),), Effect.DENY), ANONYMOUS, "other/app")
    assert not may(AccessRules((), Effect.DENY), "alice", "other/app")
    assert AccessRules((), Effect.DENY).restrict


@given(_rule_lists, st.none() | _effects, st.sampled_from(WHO), st.sampled_from(WHAT))
def test_later_rules_do_not_change_the_decision(
    rules: tuple[AccessRule, ...], default: Effect | None, who: str, what: str
) -> None:
    source = Source(GHCR, RepositoryName(what))
    at = next((place for place, rule in enumerate(rules) if rule.matches(who, source)), None)
    if at is not None:
        expected = rules[at].effect is Effect.ALLOW
        assert AccessRules(rules[: at + 1], default).may_pull(who, source) is expected
        assert AccessRules(rules, default).may_pull(who, source) is expected


@given(_rule_lists, _effects, st.sampled_from(WHAT))
def test_rules_with_accounts_do_not_match_anonymous_callers(
    rules: tuple[AccessRule, ...], default: Effect, what: str
) -> None:
    general = tuple(rule for rule in rules if not rule.accounts)
    assert may(AccessRules(rules, default), ANONYMOUS, what) is may(AccessRules(general, default), ANONYMOUS, what)


def test_a_rule_without_repositories_or_with_an_empty_account_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one repository"):
        allow()
    with pytest.raises(ValueError, match="empty"):
        allow("**", to=("alice", ANONYMOUS))
