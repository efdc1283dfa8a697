"""ResolveTag: finds the manifest that a tag refers to, for the accepted media types."""

from dataclasses import replace

from application.access.access_request import PullAccess
from application.access.read_permission import REFUSED_HEAD, ReadPermissions
from application.manifests.cached_tags import CachedTags
from application.manifests.fetch_manifest import FetchManifest
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.upstreams.outages import Outages
from domain.errors import (
    ContentUnknown,
    Denied,
    UpstreamChallenged,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from domain.records import CachedTag, TagKey, class_of, classes_for


class _ChangedAndThrottled(Exception):
    """A HEAD gave a new digest for the tag, and the upstream answered the GET for it with 429."""

    def __init__(self, fault: UpstreamThrottled) -> None:
        super().__init__(fault.message)
        self.fault = fault


class ResolveTag:
    """While a cached tag is fresh, the answer comes from the cache. After that, a HEAD to the upstream shows whether
    the tag still refers to the same manifest. If the upstream is unavailable, a stale answer is possible.
    """

    def __init__(
        self,
        permissions: ReadPermissions,
        cached_tags: CachedTags,
        manifest_cache: ManifestCache,
        fetch: FetchManifest,
        outages: Outages,
    ) -> None:
        self._permissions = permissions
        self._cached_tags = cached_tags
        self._manifest_cache = manifest_cache
        self._fetch = fetch
        self._outages = outages

    async def __call__(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer:
        """The manifest, or its metadata for HEAD. Raises the errors that the upstream returns to this caller."""
        query = replace(query, asked_at=self._cached_tags.now())
        upstream, key = access.source.upstream, query.tag_key(access.source)
        cached_tag = await self._cached_tags.find(key, classes_for(access.caller)) if key else None
        content = await self._manifest_cache.get(upstream, cached_tag.digest) if cached_tag else None
        grant = await self._permissions.grants.live(access) if content else None
        if cached_tag and content and grant and self._cached_tags.is_fresh(cached_tag):
            good_until = min(self._cached_tags.fresh_until(cached_tag), grant.ends_at, access.identity.ends_at)
            return replace(_answer(cached_tag, content), good_until=good_until)
        stand_in = await self._stand_in(access, query, key) if key else None
        try:
            return await self._outages.attempt(
                upstream,
                access.caller,
                lambda: self._ask_upstream(access, query, key, is_cached=content is not None),
                has_stand_in=stand_in is not None,
                manifests=True,
            )
        except (_ChangedAndThrottled, UpstreamUnavailable) as error:
            fault = error.fault if isinstance(error, _ChangedAndThrottled) else error
            if stand_in is None:
                raise fault from None
            if isinstance(error, UpstreamThrottled):
                # The upstream is up and asks for fewer requests, so the cached tag stays fresh for longer. Read
                # permissions are not extended.
                await self._cached_tags.extend(stand_in[0])
            return replace(_answer(*stand_in), warnings=(self._outages.stale(upstream, fault),))

    async def _stand_in(self, access: PullAccess, query: ManifestQuery, key: TagKey) -> tuple[CachedTag, bytes] | None:
        """The cached tag and manifest that this caller may receive if the upstream is unavailable."""
        classes = await self._permissions.grants.standing_in(access)
        cached_tag = await self._cached_tags.stand_in(key, query.accept, classes)
        content = await self._manifest_cache.get(access.source.upstream, cached_tag.digest) if cached_tag else None
        return (cached_tag, content) if cached_tag and content else None

    async def _ask_upstream(
        self, access: PullAccess, query: ManifestQuery, key: TagKey | None, *, is_cached: bool
    ) -> ManifestAnswer:
        """The manifest that the upstream names now. `is_cached`: the manifest that it named before is cached."""
        try:
            return await self._newest(access, query, is_cached=is_cached)
        except ContentUnknown:
            if key:
                await self._cached_tags.forget(key.source, key.tag)
            raise
        except (UpstreamChallenged, Denied):
            if key and self._permissions.is_refusal_of_class(access):
                await self._cached_tags.forget(key.source, key.tag, class_of(access.caller))
            raise

    async def _newest(self, access: PullAccess, query: ManifestQuery, *, is_cached: bool) -> ManifestAnswer:
        """Stores the new digest of a tag only when its manifest is cached or not needed. Otherwise, if the GET fails
        after the HEAD, the previous manifest of the tag could not be served as a stale answer.
        """
        answer = await self._head_answer(access, query, is_cached=is_cached)
        if answer is None:
            return await self._fetch.get(access, query)
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
        self._fetch.tag_means(access.source, query.reference, answer.digest)
        return answer

    async def _head_answer(self, access: PullAccess, query: ManifestQuery, *, is_cached: bool) -> ManifestAnswer | None:
        """The HEAD response, if a HEAD is enough: Docker Hub counts only GET requests. None if a GET is needed."""
        if not (is_cached or query.head or query.known):
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


def _answer(cached_tag: CachedTag, content: bytes) -> ManifestAnswer:
    return ManifestAnswer(cached_tag.media_type, cached_tag.digest, len(content), content, is_hit=True)
