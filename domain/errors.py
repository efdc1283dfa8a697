"""Every error that the service raises on purpose, ordered by which party is at fault.

RegistryError
|-- ClientFault                 the client has to change its request
|   |-- NameInvalid, TagInvalid, DigestInvalid, PaginationInvalid, RangeMalformed, ScopeInvalid, RequestInvalid
|   |-- RangeUnsatisfiable      carries the size of the content
|   |-- PathUnknown, TokenEndpointAbsent
|   |-- Unauthorized            carries the challenges for the response
|   |-- CredentialsRejected     raised by the token endpoint
|   |-- TooManyAttempts         carries the seconds until the next attempt
|   |-- Denied
|   `-- ContentUnknown
|       `-- NameUnknown, ManifestUnknown, BlobUnknown, ReferrersUnsupported
|-- UpstreamFault
|   |-- UpstreamUnavailable     the upstream cannot answer now; a cached answer may be served instead
|   |   |-- UpstreamOutage      affects every caller: requests that wait for the same answer share the error
|   |   |   |-- UpstreamUnreachable
|   |   |   |-- UpstreamTimedOut
|   |   |   |-- UpstreamBroken
|   |   |   |   |-- UpstreamBodyTooLarge
|   |   |   |   |-- UpstreamWrongPart
|   |   |   |   `-- UpstreamContentChanged
|   |   |   `-- UpstreamAuthUnknown
|   |   `-- UpstreamThrottled   affects one caller: the upstream counts requests per account or address
|   |       `-- UpstreamBackOff the mirror did not send the request, because of an earlier 429
|   |-- UpstreamRejected        a 4xx status without a class of its own
|   |-- IdentityRejected        the upstream rejects the mirror's own credentials
|   `-- RealmNotTrusted         the upstream's token server is at an address that the mirror does not trust
|-- MirrorFault                 the mirror could not send the request; this is never an upstream outage
|   |-- MirrorBusy              too many requests are waiting for the upstream
|   `-- RequestNotSent
|-- ActionFailed                 an action of an operator failed
|   `-- JobRunning              a job of an operator is running, so another one cannot begin
`-- UpstreamChallenged          internal: the upstream answered 401; a use case turns it into Unauthorized

The classes do not contain HTTP statuses. entrypoints/http/responses/error_responses.py maps classes to statuses.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from domain.allowance import RateLimit
from domain.challenge import Challenge


@dataclass(eq=False, repr=False)
class RegistryError(Exception):
    """An error with a code of the OCI distribution specification (section "Error Codes")."""

    code: ClassVar[str] = "UNKNOWN"
    message: str
    detail: object = field(default=None, kw_only=True)


class ClientFault(RegistryError):
    """The client must change the request."""


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


@dataclass(eq=False, repr=False, kw_only=True)
class RangeUnsatisfiable(ClientFault):
    """The content has no byte of the range. `size`: the size of the content in bytes, or None if unknown."""

    code = "RANGE_INVALID"
    size: int | None = None


class PathUnknown(ClientFault):
    code = "UNSUPPORTED"


class TokenEndpointAbsent(ClientFault):
    """The trust row has no token endpoint. On a 404, every client uses another way to authenticate."""

    code = "UNSUPPORTED"


@dataclass(eq=False, repr=False, kw_only=True)
class Unauthorized(ClientFault):
    """The caller must authenticate. `challenges`: the challenges of the response, in the order of the header lines."""

    code = "UNAUTHORIZED"
    challenges: tuple[Challenge, ...]


class CredentialsRejected(ClientFault):
    code = "UNAUTHORIZED"


@dataclass(eq=False, repr=False, kw_only=True)
class TooManyAttempts(ClientFault):
    """Too many wrong logins; this login was not checked. `retry_after`: seconds until the next attempt."""

    code = "TOOMANYREQUESTS"
    retry_after: int


class Denied(ClientFault):
    code = "DENIED"


class ContentUnknown(ClientFault):
    """The upstream does not have the content."""


class NameUnknown(ContentUnknown):
    code = "NAME_UNKNOWN"


class ManifestUnknown(ContentUnknown):
    code = "MANIFEST_UNKNOWN"


class BlobUnknown(ContentUnknown):
    code = "BLOB_UNKNOWN"


class ReferrersUnsupported(ContentUnknown):
    """The upstream has no referrers API. On a 404, the client uses the referrers tag schema."""

    code = "UNSUPPORTED"


class UpstreamFault(RegistryError):
    """The upstream did not answer as the protocol requires."""

    code = "UNAVAILABLE"


class UpstreamUnavailable(UpstreamFault):
    """The upstream cannot answer the request now. The error says nothing about permissions or about the existence of
    content, so the mirror may serve a cached answer instead.
    """


class UpstreamOutage(UpstreamUnavailable):
    """The upstream fails for every caller. Requests that wait for the same answer may share the error."""


class UpstreamUnreachable(UpstreamOutage):
    """The mirror could not connect to the upstream."""


class UpstreamTimedOut(UpstreamOutage):
    """The upstream did not answer in time, or answered 408 or 504."""


class UpstreamBroken(UpstreamOutage):
    """The upstream answered, but not as a registry does: a 5xx status, content that does not match its digest, a
    truncated body, an encoding that the mirror did not ask for.
    """


class UpstreamBodyTooLarge(UpstreamBroken):
    """The upstream sent a body longer than the limit for this kind of answer. The endpoint does not count as failed."""


class UpstreamWrongPart(UpstreamBroken):
    """The upstream did not send the requested part of a blob, or a part of other content. None of its bytes were
    used.
    """


class UpstreamContentChanged(UpstreamBroken):
    """The upstream sends different bytes of a blob than before, so the bytes from before cannot be completed."""


class UpstreamAuthUnknown(UpstreamOutage):
    """The upstream has not answered `GET /v2/` yet, so the mirror does not know how the upstream authenticates."""


@dataclass(eq=False, repr=False, kw_only=True)
class UpstreamThrottled(UpstreamUnavailable):
    """The upstream answered 429 to this caller. Other callers have allowances of their own and do not share the error.

    `retry_after` is the value of the upstream's Retry-After field as sent (RFC 9110 section 10.2.3), or None;
    `allowance` is the rate limit that the response stated, or None.
    """

    code = "TOOMANYREQUESTS"
    retry_after: str | None = None
    allowance: RateLimit | None = None


class UpstreamBackOff(UpstreamThrottled):
    """The mirror did not send the request: the upstream answered 429 a moment ago and the back-off is not over."""


class UpstreamRejected(UpstreamFault):
    """The upstream rejected the request itself, with a 4xx status that has no class of its own here."""

    code = "UNSUPPORTED"


class IdentityRejected(UpstreamFault):
    """The upstream rejects the mirror's own credentials."""


class RealmNotTrusted(UpstreamFault):
    """The upstream's challenge names a token server that the mirror does not trust."""


class MirrorFault(RegistryError):
    """The mirror could not send the request. The error says nothing about the upstream: the mirror does not serve a
    cached answer instead, and no endpoint of the upstream counts as failed.
    """


@dataclass(eq=False, repr=False, kw_only=True)
class MirrorBusy(MirrorFault):
    """Too many requests wait for the upstream. `retry_after`: seconds until the next attempt."""

    code = "TOOMANYREQUESTS"
    retry_after: int


class RequestNotSent(MirrorFault):
    """The mirror could not build the request, or this machine has no free descriptor, port or memory."""


class ActionFailed(RegistryError):
    """An action of an operator failed, or was only done in part, because a store or an index could not be written."""


class JobRunning(ActionFailed):
    """A job of an operator is running. The next one can begin when it has ended."""


@dataclass(eq=False, repr=False, kw_only=True)
class UpstreamChallenged(RegistryError):
    """The upstream answered 401. `challenges`: the upstream's challenges. A client gets them unchanged only if the
    trust row says so.
    """

    code = "UNAUTHORIZED"
    challenges: tuple[Challenge, ...]
