"""What happened, as values, for whoever keeps a log or counts."""

from dataclasses import dataclass

from domain.records import ContentKind


@dataclass(frozen=True)
class UpstreamAuthLearned:
    """The upstream's way of authenticating became known or, with `is_change`, another than it was.

    `row` is the number of the trust row that now applies.
    """

    upstream: str
    row: int
    meaning: str
    is_change: bool


@dataclass(frozen=True)
class ServiceNameConflict:
    """The upstream's challenge names the same service as ours: its tokens cannot be told from ours."""

    upstream: str
    service: str


@dataclass(frozen=True)
class UpstreamFailed:
    """A request to the upstream failed; `reason` is free of credentials."""

    upstream: str
    reason: str


@dataclass(frozen=True)
class EndpointFailed:
    """One of the upstream's addresses failed, and the others are asked instead; `reason` is free of credentials."""

    upstream: str
    endpoint: str
    reason: str


@dataclass(frozen=True)
class EndpointRecovered:
    """One of the upstream's addresses that had failed answers again."""

    upstream: str
    endpoint: str


@dataclass(frozen=True)
class DigestMismatch:
    """The upstream sent bytes that are not what their digest says."""

    upstream: str
    repository: str
    digest: str


@dataclass(frozen=True)
class PullDenied:
    """The operator's rules kept somebody from a repository; `account` is empty for who has none."""

    account: str
    upstream: str
    repository: str


@dataclass(frozen=True)
class ContentRequested:
    """Somebody who may have it asked for a manifest or a blob; `is_hit`: nothing of it had to be fetched."""

    kind: ContentKind
    is_hit: bool


@dataclass(frozen=True)
class DownloadStarted:
    """The download of a blob into the cache began."""


@dataclass(frozen=True)
class DownloadJoined:
    """Somebody reads along what is being downloaded anyway."""


@dataclass(frozen=True)
class DownloadResumed:
    """A download that had broken off is gone on with; `reason` is free of credentials."""

    upstream: str
    digest: str
    reason: str


@dataclass(frozen=True)
class BytesFetched:
    """Bytes of content came from an upstream."""

    count: int


@dataclass(frozen=True)
class BytesDelivered:
    """Bytes of content went to clients."""

    count: int


@dataclass(frozen=True)
class StaleServed:
    """Something was answered that the upstream could not be asked about again."""

    upstream: str
    reason: str


@dataclass(frozen=True)
class BackOffStarted:
    """The upstream wants to be asked less: it is left alone for so many seconds, by one whom it counts."""

    upstream: str
    seconds: int
    reason: str


@dataclass(frozen=True)
class ContentEvicted:
    """Content was removed to make room: how many pieces, how many bytes."""

    count: int
    size: int


@dataclass(frozen=True)
class ContentDamaged:
    """Stored content was not what it should be; it is gone now and will be fetched again."""

    digest: str


@dataclass(frozen=True)
class CacheFull:
    """There was no room for this; it is delivered uncached."""

    digest: str


@dataclass(frozen=True)
class CacheWriteFailed:
    """The cache could not keep this, for another reason than room (no free descriptor, a read-only file system); it is
    delivered uncached.
    """

    digest: str
    reason: str


@dataclass(frozen=True)
class UpkeepFailed:
    """What is done for the cache now and then failed this time."""

    reason: str


@dataclass(frozen=True)
class AccountsReloaded:
    """The file of accounts had changed, and holds so many now."""

    count: int


@dataclass(frozen=True)
class AccountsUnreadable:
    """The file of accounts cannot be used as it is now; the accounts stay as they were last read."""

    reason: str


@dataclass(frozen=True)
class LoginDelayed:
    """An attempt to log in waits for so many seconds, because of wrong ones before it.

    `account` is empty where there is no such account: it may be a password in the wrong field.
    """

    account: str
    address: str
    seconds: int


@dataclass(frozen=True)
class LoginRejected:
    """An attempt to log in would have had to wait for so many seconds, and was not looked at. `account` as above."""

    account: str
    address: str
    seconds: int


AccountEvent = AccountsReloaded | AccountsUnreadable | LoginDelayed | LoginRejected
CacheEvent = (
    ContentRequested
    | DownloadStarted
    | DownloadJoined
    | DownloadResumed
    | BytesFetched
    | BytesDelivered
    | StaleServed
    | BackOffStarted
    | ContentEvicted
    | ContentDamaged
    | CacheFull
    | CacheWriteFailed
    | UpkeepFailed
)
EndpointEvent = EndpointFailed | EndpointRecovered
UpstreamEvent = UpstreamAuthLearned | ServiceNameConflict | UpstreamFailed | EndpointEvent | DigestMismatch
Event = UpstreamEvent | PullDenied | AccountEvent | CacheEvent
