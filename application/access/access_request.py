"""What a caller asks for, and the access that was granted: with whose credentials the upstream is asked."""

from dataclasses import dataclass, field
from enum import Enum, auto

from application.ports.index import CallerIdentity
from application.ports.upstream import ForwardedCredentials, SessionCredentials, UpstreamCredentials
from domain.access import ANONYMOUS, NO_SCOPES, Credentials, Scope, ScopeSet
from domain.authorization import Authorization, Basic, UnsupportedAuthorization
from domain.names import RepositoryName
from domain.records import CallerId
from domain.trust import TrustRow, UpstreamAuth
from domain.upstreams import Source, Upstream

FOREVER = float("inf")


@dataclass(frozen=True)
class Caller:
    """The sender of a request. `realm` is the absolute address of this mirror's token endpoint as the caller reaches
    it, `address` the caller's own address. `is_operator`: the request comes from the command line of this machine.
    """

    authorization: Authorization | None
    realm: str
    address: str = ""
    is_operator: bool = False


class Purpose(Enum):
    """What the access is for. The trust table grants listings more freely than content."""

    PING = auto()
    LISTING = auto()
    CONTENT = auto()
    SEARCH = auto()


@dataclass(frozen=True)
class AccessRequest:
    """What a caller wants to do at an upstream. A token must cover `needed`: clients ask for scopes in their own terms,
    in the terms of the mirror's challenge, or by the name at the upstream. `shown` is the scope in the client's own
    terms, for messages. `source` is None where no repository is meant.
    """

    caller: Caller
    upstream: Upstream
    purpose: Purpose
    needed: ScopeSet = NO_SCOPES
    shown: ScopeSet = NO_SCOPES
    source: Source | None = None

    @classmethod
    def to_ping(cls, caller: Caller, upstream: Upstream) -> "AccessRequest":
        return cls(caller, upstream, Purpose.PING)

    @classmethod
    def to_read(cls, caller: Caller, source: Source, name: RepositoryName, purpose: Purpose) -> "AccessRequest":
        """To read a repository that the client calls `name`."""
        shown = Scope.pull(name)
        needed = ScopeSet.of((source.pull_scope, shown))
        return cls(caller, source.upstream, purpose, needed, ScopeSet((shown,)), source)

    @classmethod
    def to_list_repositories(cls, caller: Caller, upstream: Upstream, purpose: Purpose) -> "AccessRequest":
        scopes = ScopeSet((Scope.search() if purpose is Purpose.SEARCH else Scope.catalog(),))
        return cls(caller, upstream, purpose, scopes, scopes)


@dataclass(frozen=True)
class AccessCheck:
    """A request under the rules of the trust row that applies to it. `auth` is how the upstream authenticates.
    `account` is the account that the login or the token belongs to, where the row checks accounts.
    """

    request: AccessRequest
    row: TrustRow
    auth: UpstreamAuth
    account: str = ANONYMOUS


@dataclass(frozen=True)
class RelayedLogin:
    """A login that a caller at `address` uses at the upstream: credentials, or a text that stands for them, such as a
    refresh token (RFC 6749 section 6) or an Authorization header that this service cannot read.
    """

    upstream: Upstream
    secret: Credentials | str = field(repr=False)
    address: str


@dataclass(frozen=True)
class Access:
    """A granted request. The upstream is asked with `credentials`; `is_mirrors`: they are the mirror's own, the same
    for all callers. `ends_at`: the end of the mirror's token that the caller sent, in seconds since 1970.
    """

    check: AccessCheck
    credentials: UpstreamCredentials
    is_mirrors: bool
    ends_at: float = FOREVER

    @property
    def request(self) -> AccessRequest:
        return self.check.request

    @property
    def login(self) -> RelayedLogin | None:
        """The caller's login that goes upstream; None for a token, for no login, and for the mirror's own login."""
        caller, upstream = self.request.caller, self.request.upstream
        match self.credentials, caller.authorization:
            case _ if self.is_mirrors:
                return None
            case SessionCredentials(Credentials() as credentials), _:
                return RelayedLogin(upstream, credentials, caller.address)
            case ForwardedCredentials(str()), Basic(credentials):
                return RelayedLogin(upstream, credentials, caller.address)
            case ForwardedCredentials(str()), UnsupportedAuthorization(raw):
                return RelayedLogin(upstream, raw, caller.address)
        return None


@dataclass(frozen=True)
class PullAccess:
    """Access to one repository: which caller asks, about which source, with which credentials upstream. `is_mirrors`:
    the credentials are the mirror's own, the same for all callers.
    """

    identity: CallerIdentity
    credentials: UpstreamCredentials
    source: Source
    is_mirrors: bool = False

    @property
    def caller(self) -> CallerId:
        return self.identity.caller
