"""ExplainPull: whether a caller could pull an image now, and what decides that."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from application.access.access_request import FOREVER, PullAccess
from application.access.check_login import CheckLogin
from application.access.grants import Grants
from application.access.login_attempts import ExpectedWait
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.eviction import Eviction
from application.page.upstreams import DescribedUpstream, DescribeUpstreams
from application.page.viewer import Viewer
from application.page.visible import Sight, Visibility
from application.ports.index import CallerIdentity
from application.ports.upstream import mirror_credentials
from domain.access import ANONYMOUS
from domain.access_rules import AccessRule, AccessRules
from domain.account_policy import AccountPolicy
from domain.cache_policy import CachePolicy
from domain.digest import Digest
from domain.errors import IdentityRejected, UpstreamAuthUnknown
from domain.names import RepositoryName, Tag
from domain.ports import Clock
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, CallerClass, CallerId, ContentKind
from domain.trust import TrustRow
from domain.upstream_table import RegistryHint, UpstreamTable
from domain.upstreams import Source, Upstream
from domain.value import Value

_NO_WAIT = ExpectedWait()


class Verdict(Enum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    OPEN = "open"
    """The mirror does not refuse the pull. Whether it succeeds cannot be said without asking the upstream."""


class Reason(Enum):
    """What decides about the pull. Requests are checked in this order."""

    UPSTREAM_NOT_KNOWN = "upstream_not_known", Verdict.OPEN
    """It is not known yet how the upstream authenticates, so no trust row applies."""
    IDENTITY_IMPOSSIBLE = "identity_impossible", Verdict.REFUSED
    """No trust row is possible with the identity that the settings choose."""
    LOGIN_NEEDED = "login_needed", Verdict.REFUSED
    TOO_MANY_LOGINS = "too_many_logins", Verdict.REFUSED
    """A login from this address would be refused after too many wrong ones."""
    ACCOUNT_UNKNOWN = "account_unknown", Verdict.REFUSED
    DENIED = "denied", Verdict.REFUSED
    """By the access rules."""
    UPSTREAM_DECIDES = "upstream_decides", Verdict.OPEN
    """The upstream gets the caller's own login, which cannot be tested without the password."""
    ALLOWED = "allowed", Verdict.ALLOWED
    """As far as the mirror decides."""

    def __init__(self, key: str, verdict: Verdict) -> None:
        self.key = key
        self.verdict = verdict


class Sends(Enum):
    """The login that the upstream gets with the pull."""

    NONE = "none"
    MIRRORS = "mirrors"
    CALLERS = "callers"


class PullQuestion(Value, frozen=True):
    """`name`, `hint`: as in the client's request; `account`: the login name of the caller, or ANONYMOUS; `address`:
    that of the client, "" if it does not matter.
    """

    name: RepositoryName
    hint: RegistryHint
    target: Tag | Digest
    account: str = ANONYMOUS
    address: str = ""


class Decision(Value, frozen=True):
    """`row`, `sends`: None if they are not known; `rule`: the access rule that decided, None if no rule matched or the
    rules were not reached; `wait`: what a login from the address meets.
    """

    reason: Reason
    row: TrustRow | None = None
    sends: Sends | None = None
    rule: AccessRule | None = None
    wait: ExpectedWait = _NO_WAIT


@dataclass(frozen=True)
class CacheState:
    """What the cache has of the image. `checked_at`: when the upstream last answered for the tag, in seconds since
    1970, None for a digest; `classes`: the callers that were given it; `is_stored`: its manifest is in the cache;
    `can_stand_in`: this caller would get it if the upstream were unavailable.
    """

    digest: Digest
    checked_at: float | None
    classes: frozenset[CallerClass]
    is_stored: bool
    can_stand_in: bool


class PullExplanation(Value, frozen=True):
    """`rule_number`: the place of the rule that decided among all access rules, from 1; `upstream`: its last known
    state; `cache`: None if the mirror knows nothing of the image.
    """

    question: PullQuestion
    source: Source
    decision: Decision
    rule_number: int | None
    upstream: DescribedUpstream
    cache: CacheState | None


class _Found(Value, frozen=True):
    """The image as some callers got it."""

    digest: Digest
    classes: frozenset[CallerClass]
    checked_at: float | None = None
    stale_until: float = FOREVER


class DecidePull:
    """Decides as Authorize does for a caller with this account whose password or token is right, but sends nothing to
    an upstream and counts nothing as a refusal.
    """

    def __init__(
        self,
        *,
        upstream_auth: UpstreamAuthCache,
        policy: AccountPolicy,
        rules: AccessRules,
        accounts: CheckLogin,
        logins: RelayedLogins,
    ) -> None:
        self._upstream_auth = upstream_auth
        self._policy = policy
        self._rules = rules
        self._accounts = accounts
        self._logins = logins

    async def __call__(self, source: Source, account: str, address: str) -> Decision:
        try:
            row = await self._upstream_auth.known_row(source.upstream)
        except UpstreamAuthUnknown:
            return Decision(Reason.UPSTREAM_NOT_KNOWN)
        except IdentityRejected:
            return Decision(Reason.IDENTITY_IMPOSSIBLE)
        here, there = self._waits(row, source.upstream, account, address)
        sends, wait = _sent(row, source.upstream, account), max(here, there, key=lambda one: one.seconds)
        if refusal := self._refusal_of_login(row, account, here):
            return Decision(refusal, row, sends, wait=wait)
        # In the other rows, the name is that of a user of the upstream, for whom the mirror has no rules.
        checked = account if row.checks_accounts else ANONYMOUS
        if not self._rules.may_pull(checked, source):
            reason = Reason.DENIED
        elif there.is_refused:
            reason = Reason.TOO_MANY_LOGINS
        else:
            reason = Reason.UPSTREAM_DECIDES if sends is Sends.CALLERS else Reason.ALLOWED
        return Decision(reason, row, sends, self._rules.deciding_rule(checked, source), wait)

    def number_of(self, rule: AccessRule | None) -> int | None:
        """The place of an access rule among all, from 1."""
        return self._rules.rules.index(rule) + 1 if rule else None

    def _waits(
        self, row: TrustRow, upstream: Upstream, account: str, address: str
    ) -> tuple[ExpectedWait, ExpectedWait]:
        """What a login meets before the mirror checks it, and before the upstream does."""
        here = there = _NO_WAIT
        if account != ANONYMOUS and address:
            if row.checks_accounts:
                here = self._accounts.expected_wait(account, address)
            if row.sends_caller_logins:
                there = self._logins.expected_wait(upstream, account, address)
        return here, there

    def _refusal_of_login(self, row: TrustRow, account: str, wait: ExpectedWait) -> Reason | None:
        if not row.checks_accounts:
            return None
        if account == ANONYMOUS:
            return Reason.LOGIN_NEEDED
        if wait.is_refused:
            return Reason.TOO_MANY_LOGINS
        return None if self._policy.stamp(account) else Reason.ACCOUNT_UNKNOWN


class ExplainPull:
    """Explains from what the mirror knows: it pulls nothing, asks no upstream and sends no login. The caller has
    checked that the viewer is an operator.
    """

    def __init__(
        self,
        *,
        upstreams: UpstreamTable,
        decide: DecidePull,
        describe: DescribeUpstreams,
        visibility: Visibility,
        grants: Grants,
        policy: CachePolicy,
        eviction: Eviction,
        mirrors: Mapping[Upstream, CallerId],
        clock: Clock,
    ) -> None:
        """`mirrors`: the identity of the mirror's own login at each upstream that it has one for."""
        self._upstreams = upstreams
        self._decide = decide
        self._describe = describe
        self._visibility = visibility
        self._grants = grants
        self._policy = policy
        self._eviction = eviction
        self._mirrors = mirrors
        self._clock = clock

    async def __call__(self, viewer: Viewer, question: PullQuestion) -> PullExplanation:
        """Raises NameUnknown for a registry that this mirror does not have."""
        source = self._upstreams.source_of(question.name, question.hint)
        decision = await self._decide(source, question.account, question.address)
        return PullExplanation(
            question,
            source,
            decision,
            self._decide.number_of(decision.rule),
            self._describe.last_known(source.upstream),
            await self._cached(self._visibility.of(viewer), source, question.target, decision),
        )

    async def _cached(
        self, sight: Sight, source: Source, target: Tag | Digest, decision: Decision
    ) -> CacheState | None:
        found = await self._found(sight, source, target)
        if not found:
            return None
        standing = frozenset() if decision.sends is None else await self._standing_in(source, decision.sends)
        served = next((one for one in found if one.classes & standing and self._clock.now() < one.stale_until), None)
        shown = served or found[0]
        is_stored = await self._eviction.holds(shown.digest)
        return CacheState(
            shown.digest,
            shown.checked_at,
            frozenset().union(*(one.classes for one in found)),
            is_stored,
            is_stored and served is not None and decision.reason.verdict is not Verdict.REFUSED,
        )

    async def _found(self, sight: Sight, source: Source, target: Tag | Digest) -> list[_Found]:
        """Of a tag, the answers that callers got, the newest first."""
        if isinstance(target, Tag):
            return [
                _Found(one.digest, frozenset({one.caller_class}), one.checked_at, self._policy.stale_until(one))
                for one in await sight.answers(source, target)
            ]
        link = await sight.link(source, ContentKind.MANIFEST, target)
        return [_Found(target, link.caller_classes & await sight.classes(source))] if link else []

    async def _standing_in(self, source: Source, sends: Sends) -> frozenset[CallerClass]:
        """The classes of callers whose content the caller would get if the upstream were unavailable. The mirror knows
        callers with a login of their own by the login, which is not known here. So only public content counts for them.
        """
        if sends is Sends.CALLERS:
            return frozenset({ANONYMOUS_CLASS}) if await self._grants.is_public(source) else frozenset()
        is_mirrors = sends is Sends.MIRRORS
        identity = CallerIdentity(self._mirrors[source.upstream] if is_mirrors else ANONYMOUS_CALLER, FOREVER)
        access = PullAccess(identity, mirror_credentials(source.upstream), source, is_mirrors)
        return await self._grants.standing_in(access)


def _sent(row: TrustRow, upstream: Upstream, account: str) -> Sends:
    if row.sends_caller_logins:
        return Sends.NONE if account == ANONYMOUS else Sends.CALLERS
    has_login = upstream.credentials is not None and not upstream.forwards_client_credentials
    return Sends.MIRRORS if has_login else Sends.NONE
