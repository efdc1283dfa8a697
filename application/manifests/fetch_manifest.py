"""FetchManifest: requests manifests from the upstream, verifies them and caches them."""

from dataclasses import replace
from functools import partial

from application.access.access_request import PullAccess
from application.access.read_permission import REFUSED_HEAD, ReadPermissions
from application.concurrency import SharedFetches, SingleFlight
from application.manifests.cached_tags import CachedTags
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.telemetry import EventSink
from application.ports.upstream import Resource, ResponseMetadata, UpstreamRegistry, UpstreamRequest
from application.upstreams.outages import Outages
from domain.content import (
    MANIFEST_LIMIT,
    MANIFEST_MEDIA_TYPES,
    check_manifest,
    signed_part,
    stated_media_type,
    tells_of_manifest,
)
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken, UpstreamThrottled
from domain.events import BytesFetched, DigestMismatch
from domain.names import Tag
from domain.records import CachedTag, ContentKind, ContentLocation, TagKey, class_of, classes_for
from domain.upstreams import Source

_ROUNDS = 3
"""How many times a request waits for the fetch of another request, if those fetches fail."""
_ANY = (", ".join(MANIFEST_MEDIA_TYPES),)


class FetchManifest:
    """Every manifest that is delivered has been hashed. A HEAD response repeats what the upstream states.

    Identical requests of one caller at the same time share one request to the upstream. Requests of different callers
    do not: a response proves a permission only for the caller whose credentials were used. But a caller who comes while
    another caller fetches the manifest asks with HEAD, which registries with a pull limit do not count.
    """

    def __init__(
        self,
        registry: UpstreamRegistry,
        permissions: ReadPermissions,
        manifest_cache: ManifestCache,
        cached_tags: CachedTags,
        outages: Outages,
        events: EventSink,
    ) -> None:
        self._registry = registry
        self._permissions = permissions
        self._manifest_cache = manifest_cache
        self._cached_tags = cached_tags
        self._outages = outages
        self._events = events
        self._single_flight = SingleFlight()
        self._shared_fetches: SharedFetches[ManifestAnswer] = SharedFetches()

    async def unknown(
        self, access: PullAccess, query: ManifestQuery, *, has_stand_in: bool = False, proves_first: bool | None = None
    ) -> ManifestAnswer:
        """A manifest that is not cached, or for which this caller has no proven permission. If the upstream has asked
        for fewer requests of this caller, few requests reach it. `proves_first`: whether a HEAD proves the permission
        before the manifest is fetched; None: decided by what is cached.
        """
        return await self._outages.attempt(
            access.source.upstream,
            access.caller,
            lambda: self._head_or_get(access, query, proves_first=proves_first),
            has_stand_in=has_stand_in,
            manifests=True,
        )

    async def head(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        """The response of the upstream to HEAD; None if it lacks a field that clients need."""
        return await self._single_flight.do(self._key(access, query, head=True), lambda: self._head(access, query))

    async def get(
        self,
        access: PullAccess,
        query: ManifestQuery,
        key: TagKey | None = None,
        head_answer: ManifestAnswer | None = None,
        *,
        proves_first: bool | None = None,
    ) -> ManifestAnswer:
        """The manifest. `key`: the tag to store the response under; `head_answer`: the response to a HEAD just now;
        `proves_first`: see `unknown`.
        """
        start = partial(self._get_or_find, access, query, key, head_answer, proves_first=proves_first)
        return await self._single_flight.do((*self._key(access, query, head=False), proves_first), start)

    def tag_means(self, source: Source, tag: Tag, digest: Digest) -> None:
        """A HEAD gave this digest for the tag. A request for the digest then waits for a running fetch of the tag,
        instead of a fetch of its own.
        """
        self._shared_fetches.also((source, str(tag)), (source, str(digest)))

    async def _head_or_get(
        self, access: PullAccess, query: ManifestQuery, *, proves_first: bool | None
    ) -> ManifestAnswer:
        digest = query.reference.digest
        if digest and query.is_content_with(digest) and (head_answer := await self.head(access, query)):
            return head_answer
        return await self.get(access, query, proves_first=proves_first)

    async def _get_or_find(
        self,
        access: PullAccess,
        query: ManifestQuery,
        key: TagKey | None,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> ManifestAnswer:
        """Of all concurrent requests, one fetches the manifest. When it has ended, each other request proves its
        permission with HEAD, whatever media types it accepts. If the fetch failed, one of the allowed requests fetches
        instead.
        """
        before = self._outages.last(access.source.upstream, access.caller)
        for _ in range(_ROUNDS):
            keys = await self._fetch_keys(access, query, head_answer)
            turn = self._shared_fetches.under_way(*keys)
            if turn is None:
                async with self._shared_fetches.lead(*keys) as turn:
                    here = await self._here(access, query, key, head_answer, proves_first=proves_first)
                    turn.result = here or await self._get_and_learn(access, query, key)
                    return turn.result
            fetched = await turn.wait()
            self._outages.check(access.source.upstream, access.caller, before)
            head_answer = await self._ask_by_head(access, query)
            if found := await self._found(access, head_answer, fetched):
                return await self._learn(access, key, found)
            if head_answer is None:
                break  # only a GET shows whether this caller may read it
        return await self._get_and_learn(access, query, key)

    async def _fetch_keys(
        self, access: PullAccess, query: ManifestQuery, head_answer: ManifestAnswer | None
    ) -> list[tuple[Source, str]]:
        """The keys of what a fetch for this query may fetch, as far as they are known: the reference, and the digests
        of a tag.
        """
        names = [str(query.reference)]
        if head_answer:
            names.append(str(head_answer.digest))
        elif isinstance(tag := query.reference.target, Tag):
            names += [str(cached_tag.digest) for cached_tag in await self._recent(access, query, tag)]
        return [(access.source, name) for name in dict.fromkeys(names)]

    async def _here(
        self,
        access: PullAccess,
        query: ManifestQuery,
        key: TagKey | None,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> ManifestAnswer | None:
        """A manifest that was cached after this request arrived: the fetch of another request may have ended just
        before this one began.
        """
        if head_answer is None and proves_first is False:
            return await self._known(access, query)
        if head_answer is None and not (proves_first or await self._may_be_here(access, query)):
            return None
        head_answer = head_answer or await self._ask_by_head(access, query)
        found = await self._found(access, head_answer, None)
        return await self._learn(access, key, found) if found else None

    async def _known(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        """A cached manifest that this caller may read without a request to the upstream."""
        digest = query.reference.digest
        known = (
            await self._permissions.known(access, ContentLocation(access.source, ContentKind.MANIFEST, digest))
            if digest
            else None
        )
        content = await self._manifest_cache.get(access.source.upstream, digest) if known and digest else None
        if known is None or content is None or digest is None:
            return None
        return ManifestAnswer(known.link.media_type, digest, len(content), content, is_hit=True)

    async def _may_be_here(self, access: PullAccess, query: ManifestQuery) -> bool:
        target = query.reference.target
        if not isinstance(target, Tag):
            return await self._manifest_cache.get(access.source.upstream, target) is not None
        cached_tags = await self._recent(access, query, target)
        return any(
            [
                await self._manifest_cache.get(access.source.upstream, cached_tag.digest) is not None
                for cached_tag in cached_tags
            ]
        )

    async def _ask_by_head(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        """The HEAD response for this caller, about a manifest that another request has fetched."""
        try:
            return await self._head(access, query)
        except REFUSED_HEAD:
            return None  # a refused HEAD counts only if a GET is refused too

    async def _found(
        self, access: PullAccess, head_answer: ManifestAnswer | None, fetched: ManifestAnswer | None
    ) -> ManifestAnswer | None:
        """The content that `head_answer` describes: from the cache, or else from the response that another request
        fetched.
        """
        if head_answer is None:
            # There is no HEAD response, but a request of the same caller with another token has just proved the
            # permission.
            location = ContentLocation(access.source, ContentKind.MANIFEST, fetched.digest) if fetched else None
            return (
                replace(fetched, is_hit=True)
                if fetched and location and await self._permissions.known(access, location)
                else None
            )
        if fetched and fetched.digest == head_answer.digest:
            content = fetched.content
        else:
            content = await self._manifest_cache.get(access.source.upstream, head_answer.digest)
        if content is None:
            return None
        check_manifest(head_answer.media_type, content)
        return replace(head_answer, content=content, size=len(content), is_hit=True)

    async def _get_and_learn(self, access: PullAccess, query: ManifestQuery, key: TagKey | None) -> ManifestAnswer:
        return await self._learn(access, key, await self._get(access, query))

    async def _recent(self, access: PullAccess, query: ManifestQuery, tag: Tag) -> list[CachedTag]:
        return await self._cached_tags.recent(access.source, tag, classes_for(access.caller), query.asked_at)

    async def _learn(self, access: PullAccess, key: TagKey | None, answer: ManifestAnswer) -> ManifestAnswer:
        """Stores the cached tag before the next request may fetch, so that the next request finds it."""
        if key:
            await self._cached_tags.learn(key, answer.digest, answer.media_type, class_of(access.caller))
        return answer

    def _key(self, access: PullAccess, query: ManifestQuery, *, head: bool) -> tuple[object, ...]:
        return (access.caller, access.credentials, access.source, str(query.reference), query.accept, head)

    async def _head(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        metadata, _ = await self._ask(access, query, head=True)
        digest = query.reference.digest or metadata.digest
        # A manifest is never empty. A length of 0 means that the upstream does not support HEAD for manifests.
        if digest is None or not metadata.size or metadata.media_type is None:
            return None
        if not tells_of_manifest(metadata.media_type, metadata.digest):
            return None
        self._permissions.record(access, ContentLocation(access.source, ContentKind.MANIFEST, digest), metadata)
        return ManifestAnswer(metadata.media_type, digest, metadata.size, None, metadata.warnings)

    async def _get(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer:
        metadata, content = await self._ask(access, query, head=False)
        digest = self._checked(access.source, query.reference.digest, metadata, content)
        media_type = metadata.media_type or stated_media_type(content)
        check_manifest(media_type, content)
        metadata = replace(metadata, media_type=media_type)
        self._events.emit(BytesFetched(len(content)))
        self._permissions.record(access, ContentLocation(access.source, ContentKind.MANIFEST, digest), metadata)
        # The digest of the withdrawn schema 1 covers only part of the bytes. The cache verifies a digest over all
        # bytes, so it does not store such a manifest.
        if digest.matches(content):
            await self._manifest_cache.put(access, digest, content)
        return ManifestAnswer(media_type, digest, len(content), content, metadata.warnings)

    async def _ask(self, access: PullAccess, query: ManifestQuery, *, head: bool) -> tuple[ResponseMetadata, bytes]:
        fetch = UpstreamRequest(
            Resource.manifest(access.source, query.reference), access.credentials, head, query.accept or _ANY
        )
        asked = query.reference.digest
        try:
            async with self._registry.open(fetch) as answer:
                self._outages.saw(access.source.upstream, access.caller, answer.metadata.allowance)
                return answer.metadata, b"" if head else await answer.read(MANIFEST_LIMIT)
        except UpstreamThrottled as error:
            self._outages.throttled(access.source.upstream, access.caller, error)
            raise
        except RegistryError as error:
            location = ContentLocation(access.source, ContentKind.MANIFEST, asked) if asked else None
            await self._permissions.refused(access, location, error)
            raise

    def _checked(self, source: Source, asked: Digest | None, metadata: ResponseMetadata, content: bytes) -> Digest:
        """The verified digest of the content. The requested digest takes precedence over the Docker-Content-Digest
        header.
        """
        promised = asked or metadata.digest
        if promised is None:
            return Digest.of(signed_part(metadata.media_type, content))
        if not (promised.matches(content) or promised.matches(signed_part(metadata.media_type, content))):
            self._events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(promised)))
            raise UpstreamBroken("the upstream sent a manifest that does not match its digest")
        return promised
