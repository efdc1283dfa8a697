"""The ports to what all replicas share: an object store for content, and an index for the state of running downloads.

A replica is one service with its own cache folder. Replicas share content and knowledge through these ports only; they
never send requests to each other. Everything shared may be lost at any time: it is then fetched and learnt again.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from domain.digest import Bytes, Digest
from domain.records import CachedTag, Link
from domain.upstreams import Source, Upstream
from domain.value import Value


class SharedUnavailable(Exception):
    """The shared store or the shared index did not answer in time, refused the request, or failed a moment ago. The
    replica goes on alone. The message contains the reason.
    """


class SharedContentDamaged(Exception):
    """An object in the shared store is missing, or its bytes are not those that its record names."""


@dataclass(frozen=True)
class SharedPart:
    """One part of a blob in the shared store. `key`: the name of its object; `offset`: where it begins in the blob;
    `size`: its number of bytes; `sha256`: the hash of its bytes, in hexadecimal.
    """

    key: str
    offset: int
    size: int
    sha256: str

    @property
    def stop(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.size


@dataclass(frozen=True)
class SharedRecord:
    """What the shared store has of one digest: small content itself, or the parts of a large blob in the order of their
    offsets. A record is written only after the digest of the whole content was verified.

    `senders`: the fingerprints of the upstreams that have sent all bytes. `is_public`: one of them sent all bytes as
    public content. A record proves no right of any caller.
    """

    size: int
    senders: frozenset[str]
    is_public: bool
    content: bytes | None = None
    parts: tuple[SharedPart, ...] = ()

    def serves(self, upstream: Upstream) -> bool:
        """Whether the content is served to those who may read it at this upstream; see Provenance."""
        return self.is_public or upstream.fingerprint in self.senders


@dataclass(frozen=True)
class SharedObject:
    """An object of the shared store. `size`: bytes; `changed_at`: seconds since 1970, by the clock of the store."""

    key: str
    size: int
    changed_at: float


@dataclass(frozen=True)
class StoredPart(SharedObject):
    """The object of a part, which a record may name or not. `digest`: that of the blob; `upstream`: the fingerprint of
    the upstream that sent it.
    """

    digest: Digest
    upstream: str


SHARDS = tuple(f"{number:02x}" for number in range(256))
"""Whoever lists a large store lists one shard after the other, so that it never has all names in memory. A shard is the
first two hexadecimal digits of a SHA-256 digest. All digests of other algorithms, which are rare, are in the first one.
"""


class SharedStore(Protocol):
    """The shared content. Each method ends within a bounded time and raises SharedUnavailable if the store fails."""

    async def find(self, digest: Digest) -> SharedRecord | None:
        """The record of the content; None if there is none, or if the object is not a record."""

    async def put(self, digest: Digest, record: SharedRecord) -> None:
        """Write the record in place of the existing one."""

    async def drop(self, digest: Digest) -> None:
        """Remove the record. Its parts are removed by the sweep."""

    async def put_part(
        self, upstream: Upstream, digest: Digest, lease_id: str, offset: int, content: Bytes
    ) -> SharedPart:
        """Write one part below the upstream, the digest and the lease, so that parts of different upstreams and of
        different downloads never replace each other.
        """

    async def get_part(self, part: SharedPart) -> bytes:
        """The bytes of the part. Raises SharedContentDamaged if they are missing or do not match its hash."""

    def records(self, shard: str = "") -> AsyncIterator[tuple[Digest, SharedObject]]:
        """The records of all digests, or of those in one of SHARDS. Also objects of which `find` makes no record:
        damaged ones, and those of another release.
        """

    def parts(self, shard: str = "") -> AsyncIterator[StoredPart]:
        """The objects of the parts of all digests, or of those in one of SHARDS; also parts that no record names."""

    def parts_of(self, digest: Digest) -> AsyncIterator[StoredPart]:
        """The objects of the parts of one digest; also parts that no record names."""

    async def remove(self, keys: list[str]) -> None:
        """Remove these objects. Missing ones are not an error."""


class SharedKnowledge(Protocol):
    """What all replicas know of content. All methods raise SharedUnavailable."""

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        """The cached tags of all repositories of the upstream."""

    async def links_of(self, source: Source) -> list[Link]:
        """All links of the repository."""

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        """Remove all links and cached tags of content that has left the shared store, and the record of the upstreams
        that sent it. It reads all links and cached tags, so it is called with many digests at once.
        """


class SharedUses(Protocol):
    """When any replica last used the content of the shared store, and who looks after the store. All methods raise
    SharedUnavailable. Content without a known use counts as used when its record was written.
    """

    async def touch(self, times: Mapping[Digest, float]) -> None:
        """Store these uses, in seconds since 1970. An earlier time does not replace a later one."""

    async def last(self, digests: Sequence[Digest]) -> dict[Digest, float]:
        """The times of the last known uses."""

    async def forget(self, digests: Sequence[Digest]) -> None: ...

    async def forget_before(self, time: float) -> None:
        """Forget all uses before this time, also those of content that only the folders of replicas have."""

    async def take_upkeep(self, seconds: float) -> bool:
        """Whether the caller looks after the store now. No other worker of any replica does so for `seconds`. Two
        workers at the same time would do no damage.
        """

    async def keep_upkeep(self, seconds: float) -> bool:
        """For the worker that looks after the store: no other one does so for `seconds` from now. False: another one
        does so already.
        """


class SharedPins(Protocol):
    """What the eviction of the shared store must not remove."""

    async def protected(self) -> frozenset[Digest]:
        """The content that pinned images need. Raises SharedUnavailable, also while some pins may be missing because
        the shared index has lost them.
        """


@dataclass(frozen=True)
class SharedProgress:
    """What the holder of a shared lease has published. `total`: the length of the blob in bytes, None while it is
    unknown; `is_held`: some replica has the lease.
    """

    parts: tuple[SharedPart, ...]
    total: int | None
    is_held: bool


class SharedLease(Protocol):
    """The right to publish the parts of one blob of one upstream. The adapter renews it. It is lost if the shared index
    does not answer in time; the download then goes on, and only the publishing ends. The lease saves fetches, and the
    digest decides what is right.
    """

    id: str
    """Random: a counter could go backwards when the shared index fails over."""

    @property
    def is_lost(self) -> bool: ...

    @property
    def found(self) -> SharedProgress:
        """What holders of earlier leases had published when this one began."""

    async def publish(self, part: SharedPart, total: int | None) -> bool:
        """Make the part known to the replicas that follow. False: the lease is lost, and the part does not count. If
        the shared index does not answer, the adapter tries again until the lease is lost.
        """

    async def release(self, *, keep: bool) -> None:
        """End the lease. `keep`: the next holder may use the published parts; otherwise they are forgotten, because
        they are wrong, or because the record of the whole content names them now. Never raises.
        """


@runtime_checkable
class FollowedLease(Protocol):
    """The lease of another replica."""

    async def look(self) -> SharedProgress:
        """The current state. Raises SharedUnavailable."""


class SharedLeases(Protocol):
    """Gives the lease of each blob and upstream to one replica at a time."""

    async def lease(self, upstream: Upstream, digest: Digest) -> SharedLease | FollowedLease:
        """The lease, or that of the replica that has it. The caller has the download lease of its own replica, so a
        shared lease of a worker of the same replica has no holder any more and is taken over at once. Raises
        SharedUnavailable.
        """

    async def progress(self, fingerprint: str, digest: Digest) -> SharedProgress:
        """What has been published of the blob of the upstream with this fingerprint, and is not yet forgotten. Raises
        SharedUnavailable.
        """


class ServiceExamination(Value, frozen=True):
    """What an examination of a service found: what works, in a few words, and possible mistakes of its operator."""

    found: str
    warnings: tuple[str, ...] = ()


class SharedService(Protocol):
    """The shared store or the shared index, as operators see it."""

    @property
    def setting(self) -> str:
        """The name of the setting with its address."""

    @property
    def address(self) -> str:
        """Without credentials."""

    @property
    def failure(self) -> str:
        """Why the service is not available; "" if it is, or was not asked yet. Contains no credentials."""

    async def check(self) -> None:
        """Send one small request. Raises SharedUnavailable."""

    async def examine(self) -> ServiceExamination:
        """Do once everything that the mirror needs the service for. Leaves nothing behind. Raises SharedUnavailable."""
