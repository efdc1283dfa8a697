"""Every refusal the service knows, and whose fault it is.

RegistryError
|-- ClientFault
|   |-- NameInvalid, TagInvalid, DigestInvalid, PaginationInvalid, RangeMalformed, ScopeInvalid, RequestInvalid
|   |-- RangeUnsatisfiable
|   |-- MethodUnsupported, PageUnknown, NoTokensHere
|   |-- Unauthorized        bears the challenges that answer it
|   |-- CredentialsRefused  at the token endpoint, which answers without a challenge
|   |-- TooManyAttempts     with the seconds after which to try again
|   |-- Denied
|   `-- ContentUnknown
|       `-- NameUnknown, ManifestUnknown, BlobUnknown, ReferrersUnsupported
|-- UpstreamFault
|   |-- UpstreamUnreachable, UpstreamTimedOut, UpstreamRejected
|   |-- UpstreamBroken
|   |   `-- UpstreamTooLong more than is wanted
|   |-- UpstreamThrottled   with what it said of waiting
|   |   `-- UpstreamSpared  not asked again, because it has just said so
|   |-- UpstreamUndecided   its challenge is not known yet
|   |-- IdentityRefused     it does not accept the mirror's own identity
|   `-- RealmRefused        its challenge leads where credentials must not go
|-- MirrorFault             says nothing of the upstream, and is never counted as its outage
|   |-- MirrorBusy          too many requests wait for the upstream already
|   `-- RequestNotSent      a request to the upstream could not be built or sent
`-- UpstreamChallenged      internal: a 401 that a use case turns into one of ours

No class knows an HTTP status: entrypoints/http/responses/errors.py maps them.
"""

from collections.abc import Sequence
from typing import ClassVar

from domain.allowance import RateLimit
from domain.challenge import Challenge


class RegistryError(Exception):
    """A refusal with a code of the OCI distribution specification (section "Error Codes")."""

    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, detail: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ClientFault(RegistryError):
    """What the client asked for cannot be given to it."""


class NameInvalid(ClientFault):
    code = "NAME_INVALID"


class TagInvalid(ClientFault):
    code = "TAG_INVALID"


class DigestInvalid(ClientFault):
    code = "DIGEST_INVALID"


class PaginationInvalid(ClientFault):
    code = "PAGINATION_NUMBER_INVALID"


class RangeMalformed(ClientFault):
    code = "RANGE_INVALID"


class ScopeInvalid(ClientFault):
    code = "UNSUPPORTED"


class RequestInvalid(ClientFault):
    code = "UNSUPPORTED"


class RangeUnsatisfiable(ClientFault):
    """No byte of the range exists. `size` is the content's whole size in bytes, None when unknown."""

    code = "RANGE_INVALID"

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class MethodUnsupported(ClientFault):
    """The mirror is read-only. `allowed` is what the Allow header says."""

    code = "UNSUPPORTED"

    def __init__(self, message: str, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class PageUnknown(ClientFault):
    code = "UNSUPPORTED"


class NoTokensHere(ClientFault):
    """The trust row has no token endpoint; 404 is the status on which every client falls back."""

    code = "UNSUPPORTED"


class Unauthorized(ClientFault):
    """The caller has to authenticate; `challenges` say how, in the order of the header lines."""

    code = "UNAUTHORIZED"

    def __init__(self, message: str, *, challenges: Sequence[Challenge], detail: object = None) -> None:
        super().__init__(message, detail=detail)
        self.challenges = tuple(challenges)


class CredentialsRefused(ClientFault):
    code = "UNAUTHORIZED"


class TooManyAttempts(ClientFault):
    """Too many wrong logins; this one was not looked at. `retry_after` is in seconds."""

    code = "TOOMANYREQUESTS"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Denied(ClientFault):
    code = "DENIED"


class ContentUnknown(ClientFault):
    """The upstream does not have it."""


class NameUnknown(ContentUnknown):
    code = "NAME_UNKNOWN"


class ManifestUnknown(ContentUnknown):
    code = "MANIFEST_UNKNOWN"


class BlobUnknown(ContentUnknown):
    code = "BLOB_UNKNOWN"


class ReferrersUnsupported(ContentUnknown):
    """The upstream has no referrers API; a 404 sends the client to the tag schema."""

    code = "UNSUPPORTED"


class UpstreamFault(RegistryError):
    """The upstream did not do what it should."""

    code = "UNAVAILABLE"


class UpstreamUnreachable(UpstreamFault):
    pass


class UpstreamTimedOut(UpstreamFault):
    pass


class UpstreamBroken(UpstreamFault):
    """It answered, but not as a registry does: 5xx, a wrong digest, a body cut short, a foreign encoding."""


class UpstreamTooLong(UpstreamBroken):
    """It sent more than is wanted of such an answer. That is no sign that it is unwell."""


class UpstreamRejected(UpstreamFault):
    """It refused the request as such (a 4xx without a class of its own here)."""

    code = "UNSUPPORTED"


class UpstreamThrottled(UpstreamFault):
    """`retry_after` is the upstream's Retry-After field as sent (RFC 9110 section 10.2.3), None without one;
    `allowance` is what it said of that.
    """

    code = "TOOMANYREQUESTS"

    def __init__(
        self,
        message: str,
        *,
        retry_after: str | None = None,
        allowance: RateLimit | None = None,
        detail: object = None,
    ) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after
        self.allowance = allowance


class UpstreamSpared(UpstreamThrottled):
    """It was not asked at all: it had said just before that it wants to be asked less."""


class UpstreamUndecided(UpstreamFault):
    pass


class IdentityRefused(UpstreamFault):
    pass


class RealmRefused(UpstreamFault):
    pass


class MirrorFault(RegistryError):
    """The mirror itself could not ask the upstream. It says nothing about the upstream: no older answer may stand in
    for it, and no address of the upstream counts as failed.
    """


class MirrorBusy(MirrorFault):
    """Too many requests wait here for their turn at the upstream. `retry_after` is in seconds."""

    code = "TOOMANYREQUESTS"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestNotSent(MirrorFault):
    """A request could not be built, or this machine has no descriptor, port or memory left to send it."""


class UpstreamChallenged(RegistryError):
    """The upstream answered 401. `challenges` are its own, never shown to a client as they are
    but where the trust row says so.
    """

    code = "UNAUTHORIZED"

    def __init__(self, message: str, *, challenges: Sequence[Challenge], detail: object = None) -> None:
        super().__init__(message, detail=detail)
        self.challenges = tuple(challenges)
