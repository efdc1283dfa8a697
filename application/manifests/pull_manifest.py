"""PullManifest: delivers one manifest, by tag or by digest, with the bytes that the upstream sent."""

from dataclasses import replace

from application.access.access_request import Caller, PullAccess
from application.access.authorize import Authorize
from application.access.read_permission import REFUSED_HEAD, ReadPermission, ReadPermissions
from application.manifests.cached_tags import CachedTags
from application.manifests.fetch_manifest import FetchManifest
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.pull_log import ManifestPull
from application.ports.telemetry import EventSink, current_record
from application.upstreams.outages import Outages
from domain.digest import Digest
from domain.errors import ContentUnknown, Denied, UpstreamChallenged, UpstreamThrottled, UpstreamUnavailable
from domain.events import ContentRequested
from domain.records import CachedTag, ContentKind, ContentLocation, TagKey, class_of, classes_for


class _ChangedAndThrottled(Exception):
    """A HEAD gave a new digest for the tag, and the upstream answered the GET for it with 429."""

    def __init__(self, fault: UpstreamThrottled) -> None:
        super().__init__(fault.message)
        self.fault = fault


class PullManifest:
    """Serves a manifest from the cache if the caller may read it, else requests it from the upstream with the access of
    the caller.
    """

    def __init__(
        self,
        authorize: Authorize,
        permissions: ReadPermissions,
        cached_tags: CachedTags,
        manifest_cache: ManifestCache,
        fetch: FetchManifest,
        outages: Outages,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._permissions = permissions
        self._cached_tags = cached_tags
        self._manifest_cache = manifest_cache
        self._fetch = fetch
        self._outages = outages
        self._events = events

    async def __call__(self, caller: Caller, query: ManifestQuery) -> ManifestAnswer:
        """The manifest, or its metadata for HEAD. Raises Unauthorized, Denied, ContentUnknown or UpstreamFault."""
        async with self._authorize.repository(caller, query.name, query.hint) as access:
            if digest := query.reference.digest:
                answer = await self._by_digest(access, query, digest)
            else:
                answer = await self._by_tag(access, query)
        if query.head:
            return replace(answer, content=None)
        if answer.content is not None:
            self._events.emit(ContentRequested(ContentKind.MANIFEST, answer.is_hit))
            record = current_record()
            record.result = record.result or ("hit" if answer.is_hit else "miss")
            reference, caller_class = str(query.reference), class_of(access.caller)
            record.pull = ManifestPull(access.source, reference, caller_class, answer.is_hit)
        return answer

    async def _by_digest(self, access: PullAccess, query: ManifestQuery, digest: Digest) -> ManifestAnswer:
        """A manifest by digest never changes, so only the permission of the caller is checked with the upstream."""
        location = ContentLocation(access.source, ContentKind.MANIFEST, digest)
        if access.is_mirrors:
            content = await self._manifest_cache.get(access.source.upstream, digest)
            if content is None:
                return await self._ask_upstream(access, query)
            return _linked(await self._permissions.require(access, location), content)
        # For a caller with credentials of its own, the first upstream request does not depend on what is cached
        # (ReadPermissions.is_asked_first).
        known = await self._permissions.known(access, location)
        stand_in = known.link if known else await self._permissions.stand_in(access, location)
        # The cache is read only for a caller who may receive the content. Otherwise the time to read and hash the
        # content would show the caller that it is cached.
        content = await self._manifest_cache.get(access.source.upstream, digest) if stand_in else None
        if known and content is not None:
            return _linked(known, content)
        proves_first = await self._permissions.is_asked_first(access)
        try:
            return await self._ask_upstream(access, query, has_stand_in=content is not None, proves_first=proves_first)
        except UpstreamUnavailable as fault:
            if stand_in is None or content is None:
                raise
            return _linked(self._permissions.stale(stand_in, fault), content)

    async def _by_tag(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer:
        """While a cached tag is fresh, the answer comes from the cache. After that, a HEAD to the upstream shows
        whether the tag still refers to the same manifest. If the upstream is unavailable, a stale answer is possible.
        """
        query = replace(query, asked_at=self._cached_tags.now())
        upstream, key = access.source.upstream, query.tag_key(access.source)
        cached_tag = await self._cached_tags.find(key, classes_for(access.caller)) if key else None
        content = await self._manifest_cache.get(upstream, cached_tag.digest) if cached_tag else None
        grant = await self._permissions.grants.live(access) if content else None
        if cached_tag and content and grant and self._cached_tags.is_fresh(cached_tag):
            good_until = min(
                self._cached_tags.fresh_until(cached_tag),
                self._cached_tags.believed_until(cached_tag.key),
                grant.ends_at,
                self._permissions.grants.believed_until(access),
                access.identity.ends_at,
            )
            return replace(_named(cached_tag, content), good_until=good_until)
        stand_in = await self._stand_in(access, query, key) if key else None
        try:
            return await self._ask_upstream(
                access, query, has_stand_in=stand_in is not None, is_cached=content is not None
            )
        except (_ChangedAndThrottled, UpstreamUnavailable) as error:
            fault = error.fault if isinstance(error, _ChangedAndThrottled) else error
            if stand_in is None:
                raise fault from None
            if isinstance(error, UpstreamThrottled):
                # The upstream is up and asks for fewer requests, so the cached tag stays fresh for longer. Read
                # permissions are not extended.
                await self._cached_tags.extend(stand_in[0])
            return replace(_named(*stand_in), warnings=(self._outages.stale(upstream, fault),))

    async def _stand_in(self, access: PullAccess, query: ManifestQuery, key: TagKey) -> tuple[CachedTag, bytes] | None:
        """The cached tag and manifest that this caller may receive if the upstream is unavailable."""
        classes = await self._permissions.grants.standing_in(access)
        cached_tag = await self._cached_tags.stand_in(key, query.accept, classes)
        content = await self._manifest_cache.get(access.source.upstream, cached_tag.digest) if cached_tag else None
        return (cached_tag, content) if cached_tag and content else None

    async def _ask_upstream(
        self,
        access: PullAccess,
        query: ManifestQuery,
        *,
        has_stand_in: bool = False,
        is_cached: bool = False,
        proves_first: bool | None = None,
    ) -> ManifestAnswer:
        """The manifest that the upstream has now. If the upstream has asked for fewer requests of this caller, few
        requests reach it. `is_cached`: the manifest that the upstream last gave for the tag is cached. `proves_first`:
        see FetchManifest.get.
        """
        try:
            return await self._outages.attempt(
                access.source.upstream,
                access.caller,
                lambda: self._head_or_get(access, query, is_cached=is_cached, proves_first=proves_first),
                has_stand_in=has_stand_in,
                manifests=True,
            )
        except (ContentUnknown, UpstreamChallenged, Denied) as refused:
            key, is_unknown = query.tag_key(access.source), isinstance(refused, ContentUnknown)
            if key and (is_unknown or self._permissions.is_refusal_of_class(access)):
                refused_class = None if is_unknown else class_of(access.caller)
                await self._cached_tags.forget(key.source, key.tag, refused_class)
            raise

    async def _head_or_get(
        self, access: PullAccess, query: ManifestQuery, *, is_cached: bool, proves_first: bool | None
    ) -> ManifestAnswer:
        """Stores the new digest of a tag only when its manifest is cached or not needed. Otherwise, if the GET fails
        after the HEAD, the previous manifest of the tag could not be served as a stale answer.
        """
        answer = await self._head(access, query, is_cached=is_cached)
        if answer is None:
            return await self._fetch.get(access, query, proves_first=proves_first)
        if not query.is_content_with(answer.digest):
            # The manifest that the HEAD describes may be cached. It is fetched only if it is not.
            content = await self._manifest_cache.get(access.source.upstream, answer.digest)
            if content is None:
                try:
                    return await self._fetch.get(access, query, answer)
                except UpstreamThrottled as fault:
                    raise _ChangedAndThrottled(fault) from fault
            answer = answer.with_cached(content)
        await self._cached_tags.learn(access, query, answer)
        await self._fetch.tag_means(access.source, query.reference, answer.digest)
        return answer

    async def _head(self, access: PullAccess, query: ManifestQuery, *, is_cached: bool) -> ManifestAnswer | None:
        """The HEAD response, if a HEAD is enough: Docker Hub counts only GET requests. None if a GET is needed."""
        digest = query.reference.digest
        may_be_enough = query.is_content_with(digest) if digest else is_cached or query.head or query.known
        if not may_be_enough:
            return None
        try:
            head_answer = await self._fetch.head(access, query)
        except REFUSED_HEAD:
            if not is_cached:
                raise
            return None  # a refused HEAD counts only if a GET is refused too
        if head_answer and not is_cached and not query.is_content_with(head_answer.digest):
            return None
        return head_answer


def _linked(permission: ReadPermission, content: bytes) -> ManifestAnswer:
    """The answer with the metadata from the link."""
    link = permission.link
    return ManifestAnswer(
        link.media_type,
        link.location.digest,
        len(content),
        content,
        permission.warnings,
        permission.good_until,
        is_hit=True,
    )


def _named(cached_tag: CachedTag, content: bytes) -> ManifestAnswer:
    """The answer with the metadata from the cached tag."""
    return ManifestAnswer(cached_tag.media_type, cached_tag.digest, len(content), content, is_hit=True)
