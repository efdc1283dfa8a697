"""The trust table: how callers authenticate, depending on the settings and on the upstream's authentication.

The rows are numbered as in docs/explanation/trust.md. A row is data; the use cases read its columns and never
ask for its number.
"""

from dataclasses import dataclass, replace
from enum import Enum

from domain.challenge import Challenge
from domain.errors import IdentityRejected, UpstreamAuthUnknown
from domain.value import Value


class UpstreamIdentity(Enum):
    """Whose credentials the mirror sends to the upstream."""

    CLIENT = "client"
    ANONYMOUS = "anonymous"
    SERVICE = "service"


UpstreamScheme = Enum("UpstreamScheme", ["NONE", "BEARER", "BASIC"])
"""How the upstream requires callers to authenticate."""


class UpstreamAuth(Value, frozen=True):
    """The upstream's last definite answer to the mirror's GET /v2/ without credentials."""

    challenges: tuple[Challenge, ...] = ()

    @property
    def bearer(self) -> Challenge | None:
        """The first Bearer challenge with a realm."""
        return next((one for one in self.challenges if one.is_bearer and one.get("realm")), None)

    @property
    def scheme(self) -> UpstreamScheme:
        """Bearer if there is a Bearer challenge. Unknown schemes count as Basic, because their realm is not a URL."""
        if self.bearer:
            return UpstreamScheme.BEARER
        return UpstreamScheme.BASIC if self.challenges else UpstreamScheme.NONE


ChallengeStyle = Enum("ChallengeStyle", ["UPSTREAM", "OWN", "REWRITTEN", "OWN_BASIC"])
"""The challenge of the mirror's 401 responses."""
TokenEndpoint = Enum("TokenEndpoint", ["ABSENT", "SIGN", "RELAY", "RELAY_AND_COUNTERSIGN"])
"""What /v2/auth does."""
BearerRule = Enum("BearerRule", ["PASS", "OURS_OR_PASS", "OURS", "COUNTERSIGNED", "EITHER_OF_OURS", "REFUSE"])
"""Which Bearer tokens a resource accepts."""
BasicRule = Enum("BasicRule", ["PASS", "REFUSE", "ACCOUNT", "ACCOUNT_EXCHANGED", "ACCOUNT_PASSED"])
"""How a resource handles Basic credentials."""
AnonymousRule = Enum("AnonymousRule", ["PASS", "OPEN", "LISTINGS_ONLY", "CHALLENGE"])
"""How a resource handles requests without Authorization."""


@dataclass(frozen=True)
class TrustRow:
    """One row of the trust table. `checks_accounts`: every request needs an account of the mirror."""

    number: int
    meaning: str
    challenge: ChallengeStyle
    endpoint: TokenEndpoint
    bearer: BearerRule
    basic: BasicRule
    anonymous: AnonymousRule
    checks_accounts: bool = False

    @property
    def relays(self) -> bool:
        """Whether callers use tokens of the upstream. A token of the mirror alone is then anonymous."""
        return self.endpoint in {TokenEndpoint.RELAY, TokenEndpoint.RELAY_AND_COUNTERSIGN}

    @property
    def sends_caller_logins(self) -> bool:
        """Whether the upstream gets the login of a caller who has one, or a token for it."""
        return self.relays or self.basic in {BasicRule.PASS, BasicRule.ACCOUNT_PASSED}


TABLE = (
    TrustRow(
        1,
        "the upstream's own authentication, unchanged",
        ChallengeStyle.UPSTREAM,
        TokenEndpoint.ABSENT,
        BearerRule.PASS,
        BasicRule.PASS,
        AnonymousRule.PASS,
    ),
    TrustRow(
        2,
        "the upstream requires no authentication; the mirror gives a token to everyone",
        ChallengeStyle.OWN,
        TokenEndpoint.SIGN,
        BearerRule.OURS_OR_PASS,
        BasicRule.REFUSE,
        AnonymousRule.OPEN,
    ),
    TrustRow(
        3,
        "the caller's own upstream login, relayed through /v2/auth",
        ChallengeStyle.REWRITTEN,
        TokenEndpoint.RELAY,
        BearerRule.OURS_OR_PASS,
        BasicRule.REFUSE,
        AnonymousRule.LISTINGS_ONLY,
    ),
    TrustRow(
        4,
        "the caller's own upstream login, with Basic authentication",
        ChallengeStyle.UPSTREAM,
        TokenEndpoint.ABSENT,
        BearerRule.PASS,
        BasicRule.PASS,
        AnonymousRule.PASS,
    ),
    TrustRow(
        5,
        "everyone, with the mirror's own upstream identity",
        ChallengeStyle.OWN,
        TokenEndpoint.SIGN,
        BearerRule.OURS,
        BasicRule.REFUSE,
        AnonymousRule.OPEN,
    ),
    TrustRow(
        6,
        "accounts of this mirror, with the mirror's own upstream identity",
        ChallengeStyle.OWN,
        TokenEndpoint.SIGN,
        BearerRule.OURS,
        BasicRule.ACCOUNT,
        AnonymousRule.CHALLENGE,
        checks_accounts=True,
    ),
    TrustRow(
        7,
        "accounts that also exist at the upstream, relayed and countersigned; "
        "for accounts that exist only here, set UPSTREAM_IDENTITY=anonymous",
        ChallengeStyle.REWRITTEN,
        TokenEndpoint.RELAY_AND_COUNTERSIGN,
        BearerRule.COUNTERSIGNED,
        BasicRule.ACCOUNT_EXCHANGED,
        AnonymousRule.CHALLENGE,
        checks_accounts=True,
    ),
    TrustRow(
        8,
        "accounts that also exist at the upstream, with Basic authentication; "
        "for accounts that exist only here, set UPSTREAM_IDENTITY=anonymous",
        ChallengeStyle.OWN_BASIC,
        TokenEndpoint.ABSENT,
        BearerRule.REFUSE,
        BasicRule.ACCOUNT_PASSED,
        AnonymousRule.CHALLENGE,
        checks_accounts=True,
    ),
)
ROW_1, ROW_2, ROW_3, ROW_4, ROW_5, ROW_6, ROW_7, ROW_8 = TABLE

# Upstreams that share a host name have one realm and one service, because clients keep the first ones that they see. So
# every challenge is the mirror's own, and a token is valid for each of these upstreams: a token of the mirror that
# contains the token of the upstream whose callers use their own login.
_SHARED = {
    row.number: replace(
        row,
        challenge=ChallengeStyle.OWN,
        endpoint=TokenEndpoint.RELAY_AND_COUNTERSIGN if row.relays else TokenEndpoint.SIGN,
        bearer=BearerRule.EITHER_OF_OURS,
    )
    for row in (ROW_2, ROW_3, ROW_5, ROW_6, ROW_7)
}
# With the identity client, the row depends on whether the mirror has accounts and on the upstream's challenge.
_ROW_OF_CLIENT = {
    (False, UpstreamScheme.NONE): ROW_2,
    (False, UpstreamScheme.BEARER): ROW_3,
    (False, UpstreamScheme.BASIC): ROW_4,
    (True, UpstreamScheme.NONE): ROW_6,
    (True, UpstreamScheme.BEARER): ROW_7,
    (True, UpstreamScheme.BASIC): ROW_8,
}


@dataclass(frozen=True)
class TrustPolicy:
    """The settings of one upstream that select the row. `shares_host`: other upstreams have the same host name.

    Raises ValueError for contradictory settings: SKIP_AUTH_PROXY leaves every decision to the upstream, so accounts or
    another identity would not be checked.
    """

    skip_auth_proxy: bool
    has_accounts: bool
    identity: UpstreamIdentity
    shares_host: bool = False

    def __post_init__(self) -> None:
        if self.skip_auth_proxy and (self.has_accounts or self.identity is not UpstreamIdentity.CLIENT):
            raise ValueError(
                "SKIP_AUTH_PROXY=true cannot be combined with ACCOUNTS, HTPASSWD_FILE or an UPSTREAM_IDENTITY "
                "but client"
            )
        if self.skip_auth_proxy and self.shares_host:
            raise ValueError("SKIP_AUTH_PROXY=true allows only one upstream, because each upstream has its own realm")

    @property
    def fixed_row(self) -> TrustRow | None:
        """The row, if the settings alone select it; None if it depends on the upstream's challenge."""
        if self.skip_auth_proxy:
            return ROW_1
        if self.identity is UpstreamIdentity.CLIENT:
            return None
        return self._of_host(ROW_6 if self.has_accounts else ROW_5)

    def row_for(self, auth: UpstreamAuth | None) -> TrustRow:
        """The row that applies. Raises UpstreamAuthUnknown if it depends on a challenge that is not known yet, and
        IdentityRejected if callers cannot use their own login.
        """
        if settled := self.fixed_row:
            return settled
        if auth is None:
            raise UpstreamAuthUnknown(
                "the upstream has not been reached yet, so the mirror does not know how the upstream authenticates"
            )
        return self._of_host(_ROW_OF_CLIENT[self.has_accounts, auth.scheme])

    def _of_host(self, row: TrustRow) -> TrustRow:
        if not self.shares_host:
            return row
        if row.number not in _SHARED:
            raise IdentityRejected(
                "the upstream requires Basic authentication, which a token cannot replace: give the upstream an "
                "identity other than client, or a host name of its own"
            )
        return _SHARED[row.number]
