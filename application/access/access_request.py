"""Who wants what, and with whose right it is then asked of the upstream."""

from dataclasses import dataclass, field
from enum import Enum, auto

from application.ports.upstream import (
    ForwardedCredentials,
    SessionCredentials,
    UpstreamCredentials,
    mirror_credentials,
)
from domain.access import ANONYMOUS, NO_SCOPES, Credentials, Scope, ScopeSet
from domain.authorization import Authorization, Basic, Unreadable
from domain.names import RepositoryName
from domain.trust import TrustRow, UpstreamAuth
from domain.upstreams import Source, Upstream

FOREVER = float("inf")


@dataclass(frozen=True)
class Caller:
    """Who sent the request. `realm` is the absolute address of our token endpoint as this caller reaches it,
    `address` the caller's own. `is_operator`: it is no client, but whoever runs this service, at its own machine.
    """

    authorization: Authorization | None
    realm: str
    address: str = ""
    is_operator: bool = False


class Purpose(Enum):
    """What a right is wanted for; listings are given more freely than content."""

    PING = auto()
    LISTING = auto()
    CONTENT = auto()
    SEARCH = auto()


@dataclass(frozen=True)
class Wish:
    """What a caller wants. `shown` is the scope in the client's own words; `needed` holds those that a token may be
    for: clients ask by words of their own, by those of our challenge, or by the name at the source. `source` is None
    where no repository is meant.
    """

    caller: Caller
    upstream: Upstream
    purpose: Purpose
    needed: ScopeSet = NO_SCOPES
    shown: ScopeSet = NO_SCOPES
    source: Source | None = None

    @classmethod
    def to_ping(cls, caller: Caller, upstream: Upstream) -> "Wish":
        return cls(caller, upstream, Purpose.PING)

    @classmethod
    def to_read(
        cls, caller: Caller, source: Source, name: RepositoryName, purpose: Purpose = Purpose.CONTENT
    ) -> "Wish":
        """To read a repository that the client calls `name`."""
        shown = Scope.pull(name)
        needed = ScopeSet.of((source.pull_scope, shown))
        return cls(caller, source.upstream, purpose, needed, ScopeSet((shown,)), source)

    @classmethod
    def to_list_repositories(cls, caller: Caller, upstream: Upstream, purpose: Purpose = Purpose.LISTING) -> "Wish":
        scopes = ScopeSet((Scope.search() if purpose is Purpose.SEARCH else Scope.catalog(),))
        return cls(caller, upstream, purpose, scopes, scopes)


@dataclass(frozen=True)
class Gate:
    """A wish before the rules of the trust row that applies to it. `account`: whose login or token has been checked
    here, where the row checks accounts at all.
    """

    wish: Wish
    row: TrustRow
    auth: UpstreamAuth
    account: str = ANONYMOUS

    def caller_passes(self, right: UpstreamCredentials, ends_at: float = FOREVER) -> "Right":
        return Right(self, right, is_mirrors=False, ends_at=ends_at)

    def mirror_passes(self, ends_at: float = FOREVER) -> "Right":
        return Right(self, mirror_credentials(self.wish.upstream), is_mirrors=True, ends_at=ends_at)


@dataclass(frozen=True)
class RelayedLogin:
    """What a caller at `address` wants to be at the upstream: credentials, or a text that stands for them, as a refresh
    token (RFC 6749 section 6) and an Authorization that this service cannot read.
    """

    upstream: Upstream
    secret: Credentials | str = field(repr=False)
    address: str


@dataclass(frozen=True)
class Right:
    """A granted wish. `is_mirrors`: the upstream is asked with a right of ours, not of the caller's. `ends_at`: until
    when the token of ours that opened the gate is good, in seconds since 1970.
    """

    gate: Gate
    upstream: UpstreamCredentials
    is_mirrors: bool
    ends_at: float = FOREVER

    @property
    def login(self) -> RelayedLogin | None:
        """The caller's login that goes upstream with it; None where it sends none, a token, or the mirror's own."""
        caller, upstream = self.gate.wish.caller, self.gate.wish.upstream
        match self.upstream, caller.authorization:
            case _ if self.is_mirrors:
                return None
            case SessionCredentials(Credentials() as credentials), _:
                return RelayedLogin(upstream, credentials, caller.address)
            case ForwardedCredentials(str()), Basic(credentials):
                return RelayedLogin(upstream, credentials, caller.address)
            case ForwardedCredentials(str()), Unreadable(raw):
                return RelayedLogin(upstream, raw, caller.address)
        return None
