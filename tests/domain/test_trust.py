from itertools import product

import pytest

from domain.challenge import Challenge
from domain.errors import UpstreamAuthUnknown
from domain.trust import (
    TABLE,
    AnonymousRule,
    BasicRule,
    BearerRule,
    ChallengeStyle,
    TokenEndpoint,
    TrustPolicy,
    UpstreamAuth,
    UpstreamIdentity,
    UpstreamScheme,
)

CLIENT, ANONYMOUS, SERVICE = UpstreamIdentity.CLIENT, UpstreamIdentity.ANONYMOUS, UpstreamIdentity.SERVICE
BEARER = Challenge.of("Bearer", realm="https://auth.test/token", service="upstream")
BASIC = Challenge.of("Basic", realm="Registry")
STANCES = {
    "none": UpstreamAuth(),
    "bearer": UpstreamAuth((BEARER,)),
    "basic": UpstreamAuth((BASIC,)),
}
REFUSED = None
# SKIP_AUTH_PROXY, ACCOUNTS set, identity, the upstream's challenge: the row of docs/explanation/trust.md.
EXPECTED = {
    (True, False, CLIENT, "none"): 1,
    (True, False, CLIENT, "bearer"): 1,
    (True, False, CLIENT, "basic"): 1,
    (True, False, ANONYMOUS, "none"): REFUSED,
    (True, False, ANONYMOUS, "bearer"): REFUSED,
    (True, False, ANONYMOUS, "basic"): REFUSED,
    (True, False, SERVICE, "none"): REFUSED,
    (True, False, SERVICE, "bearer"): REFUSED,
    (True, False, SERVICE, "basic"): REFUSED,
    (True, True, CLIENT, "none"): REFUSED,
    (True, True, CLIENT, "bearer"): REFUSED,
    (True, True, CLIENT, "basic"): REFUSED,
    (True, True, ANONYMOUS, "none"): REFUSED,
    (True, True, ANONYMOUS, "bearer"): REFUSED,
    (True, True, ANONYMOUS, "basic"): REFUSED,
    (True, True, SERVICE, "none"): REFUSED,
    (True, True, SERVICE, "bearer"): REFUSED,
    (True, True, SERVICE, "basic"): REFUSED,
    (False, False, CLIENT, "none"): 2,
    (False, False, CLIENT, "bearer"): 3,
    (False, False, CLIENT, "basic"): 4,
    (False, False, ANONYMOUS, "none"): 5,
    (False, False, ANONYMOUS, "bearer"): 5,
    (False, False, ANONYMOUS, "basic"): 5,
    (False, False, SERVICE, "none"): 5,
    (False, False, SERVICE, "bearer"): 5,
    (False, False, SERVICE, "basic"): 5,
    (False, True, CLIENT, "none"): 6,
    (False, True, CLIENT, "bearer"): 7,
    (False, True, CLIENT, "basic"): 8,
    (False, True, ANONYMOUS, "none"): 6,
    (False, True, ANONYMOUS, "bearer"): 6,
    (False, True, ANONYMOUS, "basic"): 6,
    (False, True, SERVICE, "none"): 6,
    (False, True, SERVICE, "bearer"): 6,
    (False, True, SERVICE, "basic"): 6,
}
C, E, B, P, N = ChallengeStyle, TokenEndpoint, BearerRule, BasicRule, AnonymousRule
# Row: what a 401 says, what /v2/auth does, what a Bearer token, Basic credentials and no header meet, accounts.
COLUMNS = {
    1: (C.UPSTREAM, E.ABSENT, B.PASS, P.PASS, N.PASS, False),
    2: (C.OWN, E.SIGN, B.OURS_OR_PASS, P.REFUSE, N.OPEN, False),
    3: (C.REWRITTEN, E.RELAY, B.OURS_OR_PASS, P.REFUSE, N.LISTINGS_ONLY, False),
    4: (C.UPSTREAM, E.ABSENT, B.PASS, P.PASS, N.PASS, False),
    5: (C.OWN, E.SIGN, B.OURS, P.REFUSE, N.OPEN, False),
    6: (C.OWN, E.SIGN, B.OURS, P.ACCOUNT, N.CHALLENGE, True),
    7: (C.REWRITTEN, E.RELAY_AND_COUNTERSIGN, B.COUNTERSIGNED, P.ACCOUNT_EXCHANGED, N.CHALLENGE, True),
    8: (C.OWN_BASIC, E.ABSENT, B.REFUSE, P.ACCOUNT_PASSED, N.CHALLENGE, True),
}


def test_the_expectation_holds_every_combination() -> None:
    assert set(EXPECTED) == set(product([True, False], [True, False], UpstreamIdentity, STANCES))


@pytest.mark.parametrize(("combination", "row"), EXPECTED.items(), ids=str)
def test_the_row_follows_from_settings_and_challenge(
    combination: tuple[bool, bool, UpstreamIdentity, str], row: int | None
) -> None:
    skip, accounts, identity, scheme = combination
    if row is REFUSED:
        with pytest.raises(ValueError, match="SKIP_AUTH_PROXY"):
            TrustPolicy(skip, accounts, identity)
    else:
        assert TrustPolicy(skip, accounts, identity).row_for(STANCES[scheme]).number == row


def test_every_row_has_the_columns_of_the_table() -> None:
    found = {
        row.number: (row.challenge, row.endpoint, row.bearer, row.basic, row.anonymous, row.checks_accounts)
        for row in TABLE
    }
    assert found == COLUMNS


def test_every_row_says_what_it_means() -> None:
    assert [row.number for row in TABLE] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len({row.meaning for row in TABLE}) == 8


def test_no_unchecked_header_passes_where_accounts_count() -> None:
    for row in TABLE:
        if row.checks_accounts:
            assert row.bearer not in {BearerRule.PASS, BearerRule.OURS_OR_PASS}
            assert row.basic is not BasicRule.PASS
            assert row.anonymous is AnonymousRule.CHALLENGE


@pytest.mark.parametrize(
    ("policy", "row"),
    [
        (TrustPolicy(True, False, CLIENT), 1),
        (TrustPolicy(False, False, ANONYMOUS), 5),
        (TrustPolicy(False, False, SERVICE), 5),
        (TrustPolicy(False, True, ANONYMOUS), 6),
        (TrustPolicy(False, True, SERVICE), 6),
    ],
)
def test_the_settings_alone_can_determine_the_row(policy: TrustPolicy, row: int) -> None:
    assert policy.fixed_row is not None
    assert policy.fixed_row.number == row
    assert policy.row_for(None).number == row


@pytest.mark.parametrize("has_accounts", [False, True])
def test_without_known_upstream_auth_there_is_no_row(has_accounts: bool) -> None:  # noqa: FBT001 - a column
    policy = TrustPolicy(False, has_accounts, CLIENT)
    assert policy.fixed_row is None
    with pytest.raises(UpstreamAuthUnknown):
        policy.row_for(None)


@pytest.mark.parametrize(
    ("challenges", "scheme"),
    [
        ((), UpstreamScheme.NONE),
        ((BASIC, BEARER), UpstreamScheme.BEARER),
        ((BEARER, BASIC), UpstreamScheme.BEARER),
        ((Challenge.of("bearer", realm="https://x"),), UpstreamScheme.BEARER),
        ((Challenge("Bearer"),), UpstreamScheme.BASIC),
        ((Challenge("Bearer", (("realm", ""),)),), UpstreamScheme.BASIC),
        ((Challenge.of("Digest", realm="r"),), UpstreamScheme.BASIC),
        ((Challenge("Negotiate"), BASIC), UpstreamScheme.BASIC),
    ],
)
def test_the_scheme_follows_from_the_challenges(challenges: tuple[Challenge, ...], scheme: UpstreamScheme) -> None:
    assert UpstreamAuth(challenges).scheme is scheme


def test_the_first_bearer_with_a_realm_counts() -> None:
    later = Challenge.of("Bearer", realm="https://later.test")
    assert UpstreamAuth((Challenge("Bearer"), BASIC, BEARER, later)).bearer == BEARER
