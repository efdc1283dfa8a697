"""ResolveTag: finds the manifest that a tag refers to, for the accepted media types."""

from dataclasses import replace

from application.access.access_request import PullAccess
from application.access.read_permission import REFUSED_HEAD, ReadPermissions
from application.manifests.cached_tags import CachedTags
from application.manifests.fetch_manifest import FetchManifest
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.upstreams.outages import Outages
from domain.content import variant_of
from domain.errors import (
    ContentUnknown,
    Denied,
    RegistryError,
    UpstreamChallenged,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from domain.names import Tag
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

    async def __call__(self, access: PullAccess, query: ManifestQuery, tag: Tag) -> ManifestAnswer:
        """The manifest, or its metadata for HEAD. Raises the errors that the upstream returns to this caller."""
        query = replace(query, asked_at=self._cached_tags.now())
        variant = variant_of(query.accept)
        if variant is None:
            return await self._outages.attempt(
                access.source.upstream,
                access.caller,
                lambda: self._ask_upstream(access, query, None, None),
                has_stand_in=False,
                manifests=True,
            )
        key = TagKey(access.source, tag, variant)
        cached_tag = await self._cached_tags.find(key, classes_for(access.caller))
        content_here = await self._content_here(cached_tag) if cached_tag else None
        grant = await self._permissions.grants.live(access) if content_here else None
        if cached_tag and content_here and grant and self._cached_tags.is_fresh(cached_tag):
            good_until = min(self._cached_tags.fresh_until(cached_tag), grant.ends_at, access.identity.ends_at)
            return self._answer(cached_tag, content_here, good_until=good_until)
        stand_in = await self._stand_in(access, query, key)
        try:
            return await self._outages.attempt(
                access.source.upstream,
                access.caller,
                lambda: self._ask_upstream(access, query, key, cached_tag if content_here else None),
                has_stand_in=stand_in is not None,
                manifests=True,
            )
        except _ChangedAndThrottled as changed:
            if stand_in is None:
                raise changed.fault from None
            return self._stale(*stand_in, changed.fault)
        except UpstreamUnavailable as fault:
            if stand_in is None:
                raise
            if isinstance(fault, UpstreamThrottled):
                # The upstream is up and asks for fewer requests, so the cached tag stays fresh for longer. Read
                # permissions are not extended.
                await self._cached_tags.extend(stand_in[0])
            return self._stale(*stand_in, fault)

    async def _stand_in(self, access: PullAccess, query: ManifestQuery, key: TagKey) -> tuple[CachedTag, bytes] | None:
        """The cached tag and manifest that this caller may receive if the upstream is unavailable."""
        cached_tag = await self._cached_tags.stand_in(
            key, query.accept, await self._permissions.grants.standing_in(access)
        )
        content_here = await self._content_here(cached_tag) if cached_tag else None
        return (cached_tag, content_here) if cached_tag and content_here else None

    async def _content_here(self, cached_tag: CachedTag) -> bytes | None:
        return await self._manifest_cache.get(cached_tag.key.source.upstream, cached_tag.digest)

    def _answer(
        self, cached_tag: CachedTag, content: bytes, *, good_until: float = 0.0, warning: str = ""
    ) -> ManifestAnswer:
        warnings = (warning,) if warning else ()
        return ManifestAnswer(
            cached_tag.media_type, cached_tag.digest, len(content), content, warnings, good_until, is_hit=True
        )

    def _stale(self, cached_tag: CachedTag, content: bytes, fault: RegistryError) -> ManifestAnswer:
        return self._answer(cached_tag, content, warning=self._outages.stale(cached_tag.key.source.upstream, fault))

    async def _ask_upstream(
        self, access: PullAccess, query: ManifestQuery, key: TagKey | None, cached_tag: CachedTag | None
    ) -> ManifestAnswer:
        try:
            return await self._newest(access, query, key, cached_tag)
        except ContentUnknown:
            if key:
                await self._cached_tags.forget(key.source, key.tag)
            raise
        except (UpstreamChallenged, Denied):
            if key and self._permissions.is_refusal_of_class(access):
                await self._cached_tags.withdraw(key.source, key.tag, class_of(access.caller))
            raise

    async def _newest(
        self, access: PullAccess, query: ManifestQuery, key: TagKey | None, cached_tag: CachedTag | None
    ) -> ManifestAnswer:
        """Stores the new digest of a tag only when its manifest is cached or not needed. Otherwise, if the GET fails
        after the HEAD, the previous manifest of the tag could not be served as a stale answer.
        """
        head_answer = await self._head_answer(access, query, cached_tag)
        if head_answer is None:
            return await self._fetch.get(access, query, key)
        if query.is_content_with(head_answer.digest):
            return await self._remember_tag(access, key, head_answer)
        # The manifest that the HEAD describes may be cached. It is fetched only if it is not.
        content_here = await self._manifest_cache.get(access.source.upstream, head_answer.digest)
        if content_here is not None:
            return await self._remember_tag(
                access, key, replace(head_answer, content=content_here, size=len(content_here), is_hit=True)
            )
        try:
            return await self._fetch.get(access, query, key, head_answer)
        except UpstreamThrottled as fault:
            raise _ChangedAndThrottled(fault) from fault

    async def _remember_tag(
        self, access: PullAccess, key: TagKey | None, head_answer: ManifestAnswer
    ) -> ManifestAnswer:
        if key:
            await self._cached_tags.learn(key, head_answer.digest, head_answer.media_type, class_of(access.caller))
            self._fetch.tag_means(key.source, key.tag, head_answer.digest)
        return head_answer

    async def _head_answer(
        self, access: PullAccess, query: ManifestQuery, cached_tag: CachedTag | None
    ) -> ManifestAnswer | None:
        """The HEAD response, if a HEAD is enough: Docker Hub counts only GET requests. None if a GET is needed."""
        if not (cached_tag or query.head or query.known):
            return None
        try:
            head_answer = await self._fetch.head(access, query)
        except REFUSED_HEAD:
            if cached_tag is None:
                raise
            return None  # a refused HEAD counts only if a GET is refused too
        if head_answer and not cached_tag and not query.is_content_with(head_answer.digest):
            return None
        return head_answer
