"""PullManifest: delivers one manifest, by tag or by digest, with the bytes that the upstream sent."""

from dataclasses import replace

from application.access.access_request import Caller, PullAccess
from application.access.authorize import Authorize
from application.access.read_permission import ReadPermission, ReadPermissions
from application.manifests.fetch_manifest import FetchManifest
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.manifests.resolve_tag import ResolveTag
from application.ports.telemetry import EventSink
from domain.digest import Digest
from domain.errors import UpstreamUnavailable
from domain.events import ContentRequested
from domain.names import Tag
from domain.records import ContentKind, ContentLocation


class PullManifest:
    """Serves a manifest from the cache if the caller may read it, else requests it from the upstream with the access of
    the caller.
    """

    def __init__(
        self,
        authorize: Authorize,
        permissions: ReadPermissions,
        manifest_cache: ManifestCache,
        fetch: FetchManifest,
        tags: ResolveTag,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._permissions = permissions
        self._manifest_cache = manifest_cache
        self._fetch = fetch
        self._tags = tags
        self._events = events

    async def __call__(self, caller: Caller, query: ManifestQuery) -> ManifestAnswer:
        """The manifest. Raises Unauthorized, Denied, ContentUnknown or UpstreamFault."""
        async with self._authorize.repository(caller, query.name, query.hint) as access:
            target = query.reference.target
            if isinstance(target, Tag):
                answer = await self._tags(access, query)
            else:
                answer = await self._by_digest(access, query, target)
        if answer.content is not None and not query.head:
            self._events.emit(ContentRequested(ContentKind.MANIFEST, answer.is_hit))
        return replace(answer, content=None) if query.head and answer.content is not None else answer

    async def _by_digest(self, access: PullAccess, query: ManifestQuery, digest: Digest) -> ManifestAnswer:
        """A manifest by digest never changes, so only the permission of the caller is checked with the upstream."""
        location = ContentLocation(access.source, ContentKind.MANIFEST, digest)
        if access.is_mirrors:
            content = await self._manifest_cache.get(access.source.upstream, digest)
            if content is None:
                return await self._fetch.unknown(access, query)
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
            return await self._fetch.unknown(access, query, has_stand_in=content is not None, proves_first=proves_first)
        except UpstreamUnavailable as fault:
            if stand_in is None or content is None:
                raise
            return _linked(self._permissions.stale(stand_in, fault), content)


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
