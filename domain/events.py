"""Events for the log and the metrics."""

from domain.records import ContentKind
from domain.value import Value

REGISTRY_ROUTES = ("manifest", "blob", "tags", "referrers", "catalog", "ping", "token", "search")
ROUTES = (*REGISTRY_ROUTES, "operation", "other")
"""What clients request. `operation`: /livez, /readyz and /metrics; `other`: a path that the mirror does not have."""
RESULTS = ("hit", "miss", "joined", "stale", "ok", "refused", "upstream_fault", "mirror_fault", "client_left")
"""How requests end. The first four are results of manifests and blobs: from the cache; from the upstream; from a
download that was running already; from the cache during an outage. `ok`: another success; `refused`: an error of the
client, which includes content that does not exist and missing logins.
"""
UPSTREAM_KINDS = ("manifest", "blob", "tags", "referrers", "catalog", "ping", "token", "search", "storage")
"""What the mirror requests from upstreams. `storage`: the target of a redirect."""
UPSTREAM_RESULTS = ("ok", "challenged", "refused", "throttled", "failed")
"""A status below 400; 401; another status from 400 to 499; 429; and a status from 500, or no response."""


class UpstreamAuthLearned(Value, frozen=True):
    """The mirror learned how the upstream authenticates or, with `is_change`, that this has changed.

    `row` is the number of the trust row that now applies.
    """

    upstream: str
    row: int
    meaning: str
    is_change: bool


class ServiceNameConflict(Value, frozen=True):
    """The upstream's challenge has the mirror's service name, so the mirror cannot distinguish their tokens."""

    upstream: str
    service: str


class UpstreamFailed(Value, frozen=True):
    """A request to the upstream failed. `reason` contains no credentials."""

    upstream: str
    reason: str


class EndpointFailed(Value, frozen=True):
    """An endpoint of the upstream failed; requests go to the other endpoints. `reason` contains no credentials."""

    upstream: str
    endpoint: str
    reason: str


class EndpointRecovered(Value, frozen=True):
    """A failed endpoint of the upstream answers again."""

    upstream: str
    endpoint: str


class DigestMismatch(Value, frozen=True):
    """The upstream sent content that does not match its digest."""

    upstream: str
    repository: str
    digest: str


class PullDenied(Value, frozen=True):
    """The access rules denied a pull. `account` is empty for an anonymous caller."""

    account: str
    upstream: str
    repository: str


class ContentRequested(Value, frozen=True):
    """An authorized caller requested a manifest or a blob. `is_hit`: the cache contained all of it."""

    kind: ContentKind
    is_hit: bool


class DownloadStarted(Value, frozen=True):
    """A download of a blob into the cache started."""


class DownloadJoined(Value, frozen=True):
    """A request joined a running download."""


class DownloadResumed(Value, frozen=True):
    """An interrupted download continues. `reason` contains no credentials."""

    upstream: str
    digest: str
    reason: str


class BytesFetched(Value, frozen=True):
    """The mirror received bytes of content from an upstream."""

    count: int


class SharedTierOpened(Value, frozen=True):
    """A worker has opened the shared store and the shared index, which the mirror has according to its settings."""


class SharedStoreAsked(Value, frozen=True):
    """The mirror sent a request to the shared store. `operation`: "get", "put", "list" or "delete"; `result`: "ok",
    "missing" if there is no such object, "failed" if the store did not answer in time or refused the request.
    """

    operation: str
    result: str


class SharedDownloadStarted(Value, frozen=True):
    """The download of a blob takes part in what replicas share. `role`: "found" if the shared store has the whole blob,
    "followed" if another replica fetches it, "led" if this replica fetches it for all, "took_over" if it goes on with
    the parts of a replica that has stopped, "alone" if it fetches it for itself only, because the shared store, the
    shared index or the other replica failed.
    """

    role: str


class SharedBytesReceived(Value, frozen=True):
    """The mirror received bytes of content from the shared store."""

    count: int


class SharedBytesStored(Value, frozen=True):
    """The mirror wrote bytes of content to the shared store."""

    count: int


class BytesDelivered(Value, frozen=True):
    """The mirror sent bytes of content to clients."""

    count: int


class RequestAnswered(Value, frozen=True):
    """The mirror answered a request of a client. `route`: one of ROUTES; `result`: one of RESULTS; `upstream`: the URL
    of the upstream, "" if the request concerned none. `seconds`: until the end of the response; `first_byte_seconds`:
    until the first byte of a streamed body, None for another response. `size`: the bytes of the body.
    """

    route: str
    result: str
    upstream: str
    seconds: float
    size: int
    first_byte_seconds: float | None = None


class UpstreamAnswered(Value, frozen=True):
    """An exchange with an upstream reached the head of its response, or failed. `kind`: one of UPSTREAM_KINDS;
    `result`: one of UPSTREAM_RESULTS; `seconds`: without the time in the queue.
    """

    upstream: str
    kind: str
    result: str
    seconds: float


class QueueLeft(Value, frozen=True):
    """A request left the queue for an upstream after this many seconds, because it was its turn or because it is not
    sent any more.
    """

    upstream: str
    seconds: float


class BodiesReceived(Value, frozen=True):
    """A transfer of a blob from an upstream ended. `size`: the bytes that it received; `seconds`: its duration."""

    upstream: str
    size: int
    seconds: float


class CacheMeasured(Value, frozen=True):
    """Numbers of bytes. `size`: the content and the partial blobs in the cache; `limit`: the most that the cache may
    have; `free` and `total`: of the file system. `count`: the manifests and blobs.
    """

    size: int
    limit: int
    free: int
    total: int
    count: int


class StaleServed(Value, frozen=True):
    """The mirror answered from the cache during an outage of the upstream."""

    upstream: str
    reason: str


class BackOffStarted(Value, frozen=True):
    """The upstream answered 429. The mirror sends it no requests with this login for this many seconds."""

    upstream: str
    seconds: int
    reason: str


class ContentEvicted(Value, frozen=True):
    """Eviction removed content. `count`: manifests and blobs; `size`: bytes."""

    count: int
    size: int


class SharedContentEvicted(Value, frozen=True):
    """Content was removed from the shared store to keep it below its bound, or parts that no content needs. `count`:
    objects; `size`: bytes.
    """

    count: int
    size: int


class ContentDamaged(Value, frozen=True):
    """Stored content did not match its digest. It was removed and will be downloaded again."""

    digest: str


class CacheFull(Value, frozen=True):
    """There was no space to store the content; it is delivered without being stored."""

    digest: str


class CacheWriteFailed(Value, frozen=True):
    """The content could not be stored for a reason other than space (no free descriptor, a read-only file system); it
    is delivered without being stored.
    """

    digest: str
    reason: str


class UpkeepFailed(Value, frozen=True):
    """A run of the periodic maintenance of the cache failed."""

    reason: str


class AccountsReloaded(Value, frozen=True):
    """The accounts file was read again after a change. `count`: its accounts."""

    count: int


class AccountsUnreadable(Value, frozen=True):
    """The accounts file is invalid or unreadable; the accounts stay as they were last read."""

    reason: str


class LoginDelayed(Value, frozen=True):
    """A login is delayed for this many seconds because of earlier wrong logins.

    `account` is empty if no such account exists, because the text may be a password in the wrong field.
    """

    account: str
    address: str
    seconds: int


class LoginRejected(Value, frozen=True):
    """A login was rejected without a check, because its delay would be this many seconds. `account` as above."""

    account: str
    address: str
    seconds: int


class SharedIndexLost(Value, frozen=True):
    """A worker does without the shared index until it answers again. `address` and `reason` contain no credentials."""

    address: str
    reason: str


class SharedIndexRecovered(Value, frozen=True):
    """The shared index answers the worker again."""

    address: str


class SharedStoreLost(Value, frozen=True):
    """A worker does without the shared store until it answers again. `address` and `reason` contain no credentials."""

    address: str
    reason: str


class SharedStoreRecovered(Value, frozen=True):
    """The shared store answers the worker again."""

    address: str


class PinsMeasured(Value, frozen=True):
    """`size`: the bytes of the content of all pinned images, stored or not; `problems`: the images whose last check
    failed.
    """

    size: int
    problems: int


class PinsTooLarge(Value, frozen=True):
    """The content of all pinned images, `size` bytes, is larger than the cache, `limit` bytes. Nothing of it is
    removed, and what does not fit is not fetched.
    """

    size: int
    limit: int


class PinCheckFailed(Value, frozen=True):
    """A pinned image has a new problem. `reason` contains no credentials."""

    upstream: str
    image: str
    reason: str


class PinMoved(Value, frozen=True):
    """The tag of a pinned image names another manifest, which has been fetched."""

    upstream: str
    image: str
    digest: str


class OperatorActed(Value, frozen=True):
    """The audit line of an action on the page. `operator`: the login name; `address`: that of the client; `action`:
    such as `purge`; `subject`: what it was applied to; `result`: one sentence.
    """

    operator: str
    address: str
    action: str
    subject: str
    result: str


Event = (
    UpstreamAuthLearned
    | ServiceNameConflict
    | UpstreamFailed
    | EndpointFailed
    | EndpointRecovered
    | DigestMismatch
    | PullDenied
    | ContentRequested
    | DownloadStarted
    | DownloadJoined
    | DownloadResumed
    | BytesFetched
    | SharedTierOpened
    | SharedStoreAsked
    | SharedDownloadStarted
    | SharedBytesReceived
    | SharedBytesStored
    | BytesDelivered
    | RequestAnswered
    | UpstreamAnswered
    | QueueLeft
    | BodiesReceived
    | CacheMeasured
    | StaleServed
    | BackOffStarted
    | ContentEvicted
    | SharedContentEvicted
    | ContentDamaged
    | CacheFull
    | CacheWriteFailed
    | UpkeepFailed
    | AccountsReloaded
    | AccountsUnreadable
    | LoginDelayed
    | LoginRejected
    | SharedIndexLost
    | SharedIndexRecovered
    | SharedStoreLost
    | SharedStoreRecovered
    | PinsMeasured
    | PinsTooLarge
    | PinCheckFailed
    | PinMoved
    | OperatorActed
)
