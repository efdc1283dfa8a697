"""ReadPermissions: may this caller read this content? The memory, the index or the upstream answers."""

from dataclasses import replace

from application.access.access_request import PullAccess
from application.access.grants import Grants
from application.concurrency import BackgroundTasks, LruCache, SingleFlight
from application.ports.index import BELIEVED_SECONDS, KnowledgeIndex
from application.ports.upstream import (
    Resource,
    ResourceKind,
    ResponseMetadata,
    UpstreamRegistry,
    UpstreamRequest,
)
from application.upstreams.back_offs import BackOffs
from application.upstreams.outages import Outages
from domain.byte_ranges import ByteRange
from domain.digest import Digest
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
from domain.manifests import BLOB_MEDIA_TYPE, MANIFEST_LIMIT, MANIFEST_MEDIA_TYPES, identifies_manifest, signed_part
from domain.names import Reference
from domain.ports import Clock
from domain.records import PERSONAL_CLASS, ContentKind, ContentLocation, Link, class_of, classes_for
from domain.value import Value

_REMEMBERED = 32768
_ONE_BYTE = ByteRange(0, 0)
_ANYTHING: tuple[str, ...] = ()
_ANY_MANIFEST: tuple[str, ...] = (", ".join(MANIFEST_MEDIA_TYPES),)
REFUSED_HEAD = (UpstreamChallenged, Denied, ContentUnknown, UpstreamRejected)
"""A refused HEAD counts only after a refused GET: public.ecr.aws refuses every HEAD on a blob, and a URL that is signed
for GET refuses HEAD too.
"""


class ReadPermission(Value, frozen=True):
    """The caller may read the content of the link. `good_until`: the time until which no other check is necessary, in
    seconds since 1970.
    """

    link: Link
    good_until: float
    warnings: tuple[str, ...] = ()


class ReadPermissions:
    """A hit requires a grant for the caller and a link for the content. If one is missing, the upstream is asked with
    the credentials of this caller. Knowing a digest gives no right to read the content (CVE-2026-35172).
    """

    def __init__(
        self,
        registry: UpstreamRegistry,
        grants: Grants,
        index: KnowledgeIndex,
        outages: Outages,
        back_offs: BackOffs,
        background: BackgroundTasks,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self.grants = grants
        self._index = index
        self._outages = outages
        self._back_offs = back_offs
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
        remembered = self._links.get(location)
        believed_until = remembered[1] + BELIEVED_SECONDS if remembered else 0.0
        return ReadPermission(
            link, min(grant.ends_at, access.identity.ends_at, self.grants.believed_until(access), believed_until)
        )

    def record(
        self, access: PullAccess, location: ContentLocation, metadata: ResponseMetadata, known: Link | None = None
    ) -> Link:
        """Store that the upstream gave this caller the content or its metadata, and return the link. Metadata that the
        answer lacks is taken from `known`.
        """
        now, caller_classes = self._clock.now(), frozenset({class_of(access.caller)})
        believed = self._believed(location)
        remembered = self._links.get(location)
        before = remembered[0] if remembered else known
        # An older entry in memory does not count: another worker may have removed a class from the link.
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
        # Keep the time at which the old entry was read from the index. Otherwise each new answer would keep the other
        # classes in memory for longer, although another worker may have removed them from the index.
        self._links.put(location, (link, remembered[1] if believed and remembered else now))
        # An equal but older entry in memory is written again, because the link may have been removed from the index.
        if believed != link:
            self._background.start(self._index.keep_link(replace(link, caller_classes=caller_classes), now))
        return link

    async def refused(self, access: PullAccess, location: ContentLocation | None, error: Exception) -> None:
        """Remove the grant or the link that a refusal of the upstream ends."""
        if isinstance(error, UpstreamChallenged | Denied):
            if self._clock.now() < access.identity.ends_at:  # the refusal of an ended token does not end the grant
                await self.grants.end(access)
            if location is not None and self.is_refusal_of_class(access):
                self._links.pop(location)
                await self._index.forget_link(location, class_of(access.caller))
        elif location is not None and isinstance(error, ContentUnknown):
            self._links.pop(location)
            await self._index.forget_link(location)

    def is_refusal_of_class(self, access: PullAccess) -> bool:
        """Whether a refusal of this caller is a refusal of its whole class. Callers with a login of their own have
        different rights, so a refusal of one says nothing about the others.
        """
        return class_of(access.caller) != PERSONAL_CLASS and self._clock.now() < access.identity.ends_at

    def forget_all(self) -> None:
        """Clear the memory. The index is not changed."""
        self._links.clear()
        self.grants.forget_all()

    async def _find(self, location: ContentLocation) -> Link | None:
        if known := self._believed(location):
            return known
        read_at = self._clock.now() - self._index.age(location.source)
        link = await self._index.find_link(location)
        if link is None:
            self._links.pop(location)
        else:
            self._links.put(location, (link, read_at))
        return link

    def _believed(self, location: ContentLocation) -> Link | None:
        """The link in memory, if it was read a few seconds ago; later another worker may have changed it."""
        known = self._links.get(location)
        return known[0] if known and self._clock.now() < known[1] + BELIEVED_SECONDS else None

    async def _prove(
        self, access: PullAccess, location: ContentLocation, known: Link | None, proof: UpstreamRequest | None
    ) -> Link:
        try:
            metadata = await (self._metadata(access, proof) if proof else self._metadata_of(access, location))
        except RangeUnsatisfiable as outside:
            metadata = ResponseMetadata(size=outside.size)  # the content exists, and is shorter than the range
        except REFUSED_HEAD as error:
            await self.refused(access, location, error)
            raise
        return self.record(access, location, metadata, known)

    async def _metadata_of(self, access: PullAccess, location: ContentLocation) -> ResponseMetadata:
        """The metadata from a HEAD, or else from a GET for one byte. If they do not prove that the response is this
        manifest, from a GET whose body is verified.
        """
        if location.kind is ContentKind.BLOB:
            resource, accept = Resource.blob(access.source, location.digest), _ANYTHING
        else:
            resource, accept = Resource.manifest(access.source, Reference(location.digest)), _ANY_MANIFEST
        whole = UpstreamRequest(resource, access.credentials, accept=accept)
        try:
            metadata = await self._metadata(access, replace(whole, head=True))
        except REFUSED_HEAD:
            metadata = await self._metadata(access, replace(whole, byte_range=_ONE_BYTE))
        if location.kind is ContentKind.BLOB or identifies_manifest(metadata.media_type, metadata.digest):
            return metadata
        return await self._metadata(access, whole, verified=location.digest)

    async def _metadata(
        self, access: PullAccess, request: UpstreamRequest, verified: Digest | None = None
    ) -> ResponseMetadata:
        """The metadata of the response. `verified`: the digest that the body, a manifest, must have."""
        async with self._registry.open(request) as answer:
            metadata = answer.metadata
            content = await answer.read(MANIFEST_LIMIT) if verified else b""
        if request.resource.kind is ResourceKind.MANIFEST:
            self._back_offs.saw(access.source.upstream, access.caller, metadata.allowance)
        if verified and not (verified.matches(content) or verified.matches(signed_part(metadata.media_type, content))):
            raise UpstreamBroken("the upstream sent a manifest that does not match its digest")
        return metadata
