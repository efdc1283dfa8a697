"""ReadPermissions: may this caller read this very thing? Answered from memory, or by the upstream, to this caller."""

from dataclasses import dataclass, replace

from application.access.access_request import PullAccess
from application.access.grants import BELIEVED_SECONDS, Grants
from application.concurrency import BackgroundTasks, LruCache, SingleFlight
from application.ports.index import KnowledgeIndex
from application.ports.upstream import (
    Resource,
    ResourceKind,
    ResponseMetadata,
    UpstreamRegistry,
    UpstreamRequest,
)
from application.upstreams.outages import Outages
from domain.content import (
    BLOB_MEDIA_TYPE,
    MANIFEST_LIMIT,
    MANIFEST_MEDIA_TYPES,
    ByteRange,
    signed_part,
    tells_of_manifest,
)
from domain.errors import (
    ContentUnknown,
    Denied,
    RangeUnsatisfiable,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamRejected,
    UpstreamUnavailable,
)
from domain.names import Reference
from domain.ports import Clock
from domain.records import PERSONAL_CLASS, ContentKind, ContentLocation, Link, class_of, classes_for

_REMEMBERED = 32768
_ONE_BYTE = ByteRange(0, 0)
_ANYTHING: tuple[str, ...] = ()
_ANY_MANIFEST: tuple[str, ...] = (", ".join(MANIFEST_MEDIA_TYPES),)
# A refused HEAD counts only after a refused GET: public.ecr.aws refuses every HEAD on a blob, and an address that
# is signed for GET refuses HEAD too.
REFUSED_HEAD = (UpstreamChallenged, Denied, ContentUnknown, UpstreamRejected)


@dataclass(frozen=True)
class ReadPermission:
    """The caller may read it. `good_until`: so it may without being asked about again, in seconds since 1970."""

    link: Link
    good_until: float
    warnings: tuple[str, ...] = ()


class ReadPermissions:
    """A hit needs a grant for the caller and a link for the thing; what is missing is asked of the upstream with the
    caller's own access. To know a digest is no right to read it (CVE-2026-35172).
    """

    def __init__(
        self,
        registry: UpstreamRegistry,
        grants: Grants,
        index: KnowledgeIndex,
        outages: Outages,
        background: BackgroundTasks,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self.grants = grants
        self._index = index
        self._outages = outages
        self._background = background
        self._clock = clock
        self._links: LruCache[ContentLocation, tuple[Link, float]] = LruCache(_REMEMBERED)
        self._proofs = SingleFlight()

    async def is_asked_first(self, access: PullAccess) -> bool:
        """Whether the caller must prove its permission (`require`) before content that is not cached is fetched.

        A refused caller must learn neither from the requests to the upstream nor from their duration whether the
        content is cached. So the first request depends on the caller alone: without a live grant it is the proof of
        `require`, with one it is the request that fetches (`as_fetched`). With the mirror's own credentials every
        caller gets the same answer.
        """
        return not access.is_mirrors and await self.grants.live(access) is None

    async def require(
        self, access: PullAccess, location: ContentLocation, as_fetched: UpstreamRequest | None = None
    ) -> ReadPermission:
        """The caller's permission to read the content. `as_fetched`: the request that is sent if it is not cached.

        Raises UpstreamChallenged, Denied, ContentUnknown, or another UpstreamFault.
        """
        if known := await self.known(access, location):
            return known
        link = await self._find(location)
        proof = None if access.is_mirrors or await self.is_asked_first(access) else as_fetched
        stand_in = await self.stand_in(access, location)
        try:
            link = await self._outages.attempt(
                access.source.upstream,
                access.caller,
                lambda: self._proofs.do(
                    (access.caller, access.credentials, location, proof),
                    lambda: self._prove(access, location, link, proof),
                ),
                has_stand_in=stand_in is not None,
                manifests=location.kind is ContentKind.MANIFEST,
            )
        except UpstreamUnavailable as fault:
            if stand_in is None:
                raise
            return self.stale(stand_in, fault)
        return ReadPermission(link, 0.0)

    async def stand_in(self, access: PullAccess, location: ContentLocation) -> Link | None:
        """The link by which the caller may read the content while the upstream is unavailable."""
        link = await self._find(location)
        return link if link and link.caller_classes & await self.grants.standing_in(access) else None

    def stale(self, stand_in: Link, fault: RegistryError) -> ReadPermission:
        """The permission that a stand-in gives, with its Warning."""
        return ReadPermission(stand_in, 0.0, (self._outages.stale(stand_in.location.source.upstream, fault),))

    async def known(self, access: PullAccess, location: ContentLocation) -> ReadPermission | None:
        """The permission that needs no request to the upstream: the caller has a live grant, and the upstream gave the
        content to callers of this class or to anonymous callers.
        """
        grant = await self.grants.live(access)
        link = await self._find(location) if grant else None
        if grant is None or link is None or not link.caller_classes & classes_for(access.caller):
            return None
        return ReadPermission(link, min(grant.ends_at, access.identity.ends_at))

    def record(
        self, access: PullAccess, location: ContentLocation, metadata: ResponseMetadata, known: Link | None = None
    ) -> Link:
        """The upstream gave this caller the content or its metadata. Takes from `known` what the answer leaves out."""
        now, caller_classes = self._clock.now(), frozenset({class_of(access.caller)})
        believed = self._believed(location)
        remembered = self._links.get(location)
        before = remembered[0] if remembered else known
        # Another worker may have withdrawn a class from a link that is too old to be believed.
        others = believed or known
        size = metadata.size if metadata.span is None else metadata.whole_size
        if size == 0 and not location.digest.is_of_empty_content:
            size = None
        default = BLOB_MEDIA_TYPE if location.kind is ContentKind.BLOB else ""
        link = Link(
            location,
            metadata.media_type or (before.media_type if before else default),
            before.size if before and size is None else size,
            caller_classes | (others.caller_classes if others else frozenset()),
        )
        self.grants.give(access)
        # The other classes are believed only for the usual time since they were read from the index.
        self._links.put(location, (link, remembered[1] if believed and remembered else now))
        # Written also if the link is only too old to be believed: it may have been pruned with its content.
        if believed != link:
            self._background.start(self._index.keep_link(replace(link, caller_classes=caller_classes), now))
        return link

    async def refused(self, access: PullAccess, location: ContentLocation | None, error: Exception) -> None:
        """The upstream's refusal ends what it had granted."""
        if isinstance(error, UpstreamChallenged | Denied):
            if self._clock.now() < access.identity.ends_at:  # what an ended token earns says nothing of its owner
                await self.grants.end(access)
            if location is not None and self.is_refusal_of_class(access):
                self._links.pop(location)
                await self._index.forget_link(location, class_of(access.caller))
        elif location is not None and isinstance(error, ContentUnknown):
            await self.unlink(location)

    def is_refusal_of_class(self, access: PullAccess) -> bool:
        """Whether what is refused to this caller now is refused to all of its class. Each personal caller has a right
        of its own: what one is refused, others may read.
        """
        return class_of(access.caller) != PERSONAL_CLASS and self._clock.now() < access.identity.ends_at

    async def unlink(self, location: ContentLocation) -> None:
        self._links.pop(location)
        await self._index.forget_link(location)

    def forget_all(self) -> None:
        """What is in memory; the index has what is true."""
        self._links.clear()
        self.grants.forget_all()

    async def _find(self, location: ContentLocation) -> Link | None:
        if known := self._believed(location):
            return known
        link = await self._index.find_link(location)
        if link is None:
            self._links.pop(location)
        else:
            self._links.put(location, (link, self._clock.now()))
        return link

    def _believed(self, location: ContentLocation) -> Link | None:
        """For a moment only: another worker may know better."""
        known = self._links.get(location)
        return known[0] if known and self._clock.now() < known[1] + BELIEVED_SECONDS else None

    async def _prove(
        self, access: PullAccess, location: ContentLocation, known: Link | None, proof: UpstreamRequest | None
    ) -> Link:
        try:
            metadata = await (self._headed(access, proof) if proof else self._spoken_of(access, location))
        except REFUSED_HEAD as error:
            await self.refused(access, location, error)
            raise
        return self.record(access, location, metadata, known)

    async def _headed(self, access: PullAccess, proof: UpstreamRequest) -> ResponseMetadata:
        """The head of the answer to a GET, whose body is left."""
        try:
            return await self._metadata(access, proof)
        except RangeUnsatisfiable as outside:
            return ResponseMetadata(size=outside.size)  # it is there

    async def _spoken_of(self, access: PullAccess, location: ContentLocation) -> ResponseMetadata:
        if location.kind is ContentKind.BLOB:
            resource, accept = Resource.blob(access.source, location.digest), _ANYTHING
        else:
            resource, accept = Resource.manifest(access.source, Reference(location.digest)), _ANY_MANIFEST
        try:
            try:
                metadata = await self._metadata(
                    access, UpstreamRequest(resource, access.credentials, head=True, accept=accept)
                )
            except REFUSED_HEAD:
                metadata = await self._metadata(
                    access, UpstreamRequest(resource, access.credentials, accept=accept, byte_range=_ONE_BYTE)
                )
            if location.kind is ContentKind.BLOB or tells_of_manifest(metadata.media_type, metadata.digest):
                return metadata
            return await self._read(access, location, UpstreamRequest(resource, access.credentials, accept=accept))
        except RangeUnsatisfiable as empty:
            return ResponseMetadata(
                size=empty.size
            )  # it is there, and has not even the one byte that stands in for a HEAD

    async def _read(self, access: PullAccess, location: ContentLocation, fetch: UpstreamRequest) -> ResponseMetadata:
        """The head of an answer that may be anything, after the body has proved that it is this manifest."""
        async with self._registry.open(fetch) as answer:
            metadata, content = answer.metadata, await answer.read(MANIFEST_LIMIT)
        self._outages.saw(access.source.upstream, access.caller, metadata.allowance)
        if not (location.digest.matches(content) or location.digest.matches(signed_part(metadata.media_type, content))):
            raise UpstreamBroken("the upstream sent a manifest that does not match its digest")
        return metadata

    async def _metadata(self, access: PullAccess, fetch: UpstreamRequest) -> ResponseMetadata:
        async with self._registry.open(fetch) as answer:
            if fetch.resource.kind is ResourceKind.MANIFEST:
                self._outages.saw(access.source.upstream, access.caller, answer.metadata.allowance)
            return answer.metadata
