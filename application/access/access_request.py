"""The values of authorization: the request of a caller, its check, and the granted access."""

from dataclasses import dataclass, field
from enum import Enum, auto

from application.ports.index import CallerIdentity
from application.ports.upstream import ForwardedCredentials, SessionCredentials, UpstreamCredentials
from domain.access import ANONYMOUS, NO_SCOPES, Credentials, Scope, ScopeSet
from domain.authorization import Authorization, Basic, UnsupportedAuthorization
from domain.records import CallerId
from domain.trust import TrustRow, UpstreamAuth
from domain.upstreams import Source, Upstream
from domain.value import Value

FOREVER = float("inf")


@dataclass(frozen=True)
class Caller:
    """The sender of a request. `realm`: the URL of the mirror's token endpoint at the address that the caller uses;
    `address`: the caller's own address; `is_operator`: an operator of the page, or the mirror itself, which pulls for
    its operator: see MirrorCaller.
    """

    authorization: Authorization | None
    realm: str
    address: str = ""
    is_operator: bool = False


class Purpose(Enum):
    """The kind of request. Some trust rows allow listings without a login, but not content."""

    PING = auto()
    LISTING = auto()
    CONTENT = auto()
    SEARCH = auto()


class AccessRequest(Value, frozen=True):
    """What a caller wants to do at an upstream. A token must cover one scope of `needed`, which has the repository both
    with the client's name and with the name at the upstream, because clients use either in a token request. `shown`:
    the scope with the client's name, for challenges and messages; `source`: None if the request is not about a
    repository.
    """

    caller: Caller
    upstream: Upstream
    purpose: Purpose
    needed: ScopeSet = NO_SCOPES
    shown: ScopeSet = NO_SCOPES
    source: Source | None = None

    @classmethod
    def to_list_repositories(cls, caller: Caller, upstream: Upstream, purpose: Purpose) -> "AccessRequest":
        scopes = ScopeSet((Scope.search() if purpose is Purpose.SEARCH else Scope.catalog(),))
        return cls(caller, upstream, purpose, scopes, scopes)


@dataclass(frozen=True)
class AccessCheck:
    """A request and the trust row that applies to it. `auth`: how the upstream authenticates; `account`: the checked
    account of the login or token, if the row checks accounts.
    """

    request: AccessRequest
    row: TrustRow
    auth: UpstreamAuth
    account: str = ANONYMOUS


@dataclass(frozen=True)
class RelayedLogin:
    """A login that a caller at `address` uses at the upstream. `secret`: credentials, a refresh token (RFC 6749
    section 6), or an Authorization header that this service cannot parse.
    """

    upstream: Upstream
    secret: Credentials | str = field(repr=False)
    address: str


class Access(Value, frozen=True):
    """A granted request. `credentials`: what the upstream receives; `is_mirrors`: they are the mirror's own, the same
    for all callers; `ends_at`: the end of the mirror's token that the caller sent, in seconds since 1970.
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
        """The caller's login that is sent upstream; None for a token, for no login, and for the mirror's own login."""
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


class PullAccess(Value, frozen=True):
    """Access to one repository. `credentials`: what the upstream receives; `is_mirrors`: they are the mirror's own, the
    same for all callers.
    """

    identity: CallerIdentity
    credentials: UpstreamCredentials
    source: Source
    is_mirrors: bool = False

    @property
    def caller(self) -> CallerId:
        return self.identity.caller
