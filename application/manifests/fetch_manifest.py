"""FetchManifest: requests manifests from the upstream, verifies them and caches them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import chain, repeat

from application.access.access_request import PullAccess
from application.access.read_permission import REFUSED_HEAD, ReadPermissions
from application.concurrency import BackgroundTasks, SharedFetches, SingleFlight
from application.manifests.cached_tags import CachedTags
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.telemetry import EventSink
from application.ports.turns import TURN_SECONDS, Turn, Turns
from application.ports.upstream import Resource, ResponseMetadata, UpstreamRegistry, UpstreamRequest
from application.upstreams.back_offs import Asker, BackOffs
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken, UpstreamThrottled
from domain.events import BytesFetched, DigestMismatch
from domain.manifests import (
    MANIFEST_LIMIT,
    MANIFEST_MEDIA_TYPES,
    check_manifest,
    identifies_manifest,
    signed_part,
    stated_media_type,
)
from domain.names import Reference, Tag
from domain.records import ContentKind, ContentLocation, classes_for
from domain.upstreams import Source

_ROUNDS = 3
"""How many times a request waits for the fetch of another request, if those fetches fail."""
_PAUSES = (0.02, 0.04, 0.06, 0.1)
"""Seconds between two looks at the turn of another worker or replica. The last one is repeated."""
_UPLOAD_SECONDS = 0.5
"""How long the other replicas wait for the upload of a manifest. If it takes longer, they fetch the manifest again."""
_ANY = (", ".join(MANIFEST_MEDIA_TYPES),)


_Outcome = tuple[ManifestAnswer | None, ManifestAnswer | None]
"""The answer; without one, the fetch of another request has ended, and the second is what it fetched, if known."""
_Attempt = Callable[[ManifestAnswer | None], Awaitable[_Outcome]]
"""Fetch the manifest, unless another request does so: then wait for its end. Takes the response to the last HEAD."""


class FetchManifest:
    """Every manifest that is delivered has been hashed. A HEAD response repeats what the upstream states.

    Identical requests of one caller at the same time share one request to the upstream. Requests of different callers
    do not: a response proves a permission only for the caller whose credentials were used. But a caller who comes while
    another caller fetches the manifest asks with HEAD, which registries with a pull limit do not count. The same holds
    for all workers of all replicas, if they share an index: the one that has the turn fetches.
    """

    def __init__(
        self,
        registry: UpstreamRegistry,
        permissions: ReadPermissions,
        manifest_cache: ManifestCache,
        cached_tags: CachedTags,
        back_offs: BackOffs,
        events: EventSink,
        background: BackgroundTasks,
        turns: Turns | None = None,
    ) -> None:
        """`turns`: None if this replica shares nothing."""
        self._registry = registry
        self._permissions = permissions
        self._manifest_cache = manifest_cache
        self._cached_tags = cached_tags
        self._back_offs = back_offs
        self._events = events
        self._background = background
        self._turns = turns
        self._single_flight = SingleFlight()
        self._shared_fetches: SharedFetches[ManifestAnswer] = SharedFetches()

    async def head(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        """The response of the upstream to HEAD; None if it lacks a field that clients need."""
        return await self._single_flight.do(self._key(access, query, head=True), lambda: self._head(access, query))

    async def get(
        self,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None = None,
        *,
        proves_first: bool | None = None,
    ) -> ManifestAnswer:
        """The manifest, which is not cached, or for which this caller has no proven permission. `head_answer`: the
        response to a HEAD just now. `proves_first`: whether a HEAD proves the permission before the manifest is
        fetched; None: decided by what is cached.
        """
        start = partial(self._get_or_find, access, query, head_answer, proves_first=proves_first)
        return await self._single_flight.do((*self._key(access, query, head=False), proves_first), start)

    async def tag_means(self, source: Source, reference: Reference, digest: Digest) -> None:
        """A HEAD gave this digest for the tag. A request for the digest then waits for a running fetch of the tag,
        instead of a fetch of its own.
        """
        self._shared_fetches.also((source, str(reference)), (source, str(digest)))
        if self._turns and isinstance(reference.target, Tag):
            await self._turns.add(source, str(reference), str(digest))

    async def _get_or_find(
        self,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> ManifestAnswer:
        """The manifest, which one of all concurrent requests of this worker fetches, and of all workers and replicas if
        they have turns.
        """
        attempt = partial(self._lead_or_wait, access, query, proves_first=proves_first)
        return await self._one_of_all(access, query, head_answer, attempt)

    async def _one_of_all(
        self, access: PullAccess, query: ManifestQuery, head_answer: ManifestAnswer | None, attempt: _Attempt
    ) -> ManifestAnswer:
        """Of all requests that make this attempt, one fetches the manifest. When it has ended, each other request
        proves its permission with HEAD, whatever media types it accepts. If the fetch failed, one of the allowed
        requests fetches instead.
        """
        asker = Asker(access.source.upstream, access.caller, manifests=True)
        before = self._back_offs.last(asker)
        for _ in range(_ROUNDS):
            answer, fetched = await attempt(head_answer)
            if answer:
                return answer
            self._back_offs.check(asker, before)
            head_answer = await self._head_or_none(access, query)
            if found := await self._found(access, query, head_answer, fetched):
                return found
            if head_answer is None:
                break  # only a GET shows whether this caller may read it
        return await self._get(access, query)

    async def _lead_or_wait(
        self,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> _Outcome:
        """An attempt among the requests of this worker."""
        # What a fetch for this query may fetch, as far as it is known.
        digests = [head_answer.digest] if head_answer else await self._cached_tags.likely_digests(access, query)
        names = [*dict.fromkeys([str(query.reference), *map(str, digests)])]
        keys = [(access.source, name) for name in names]
        if running := self._shared_fetches.under_way(*keys):
            return None, await running.wait()
        async with self._shared_fetches.lead(*keys) as fetch:
            if self._turns is None:
                fetch.result = await self._find_or_get(access, query, head_answer, proves_first=proves_first)
            else:
                attempt = partial(self._take_turn_or_wait, self._turns, names, access, query, proves_first=proves_first)
                fetch.result = await self._one_of_all(access, query, head_answer, attempt)
            return fetch.result, None

    async def _find_or_get(
        self,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> ManifestAnswer:
        cached = await self._cached_meanwhile(access, query, head_answer, proves_first=proves_first)
        return cached or await self._get(access, query)

    # --- turns with the other workers and replicas ---

    async def _take_turn_or_wait(
        self,
        turns: Turns,
        names: list[str],
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> _Outcome:
        """An attempt among all workers of all replicas."""
        if turn := await turns.take(access.source, names):
            return await self._with_turn(turns, turn, access, query, head_answer, proves_first=proves_first), None
        await self._turn_over(turns, access.source, names)
        return await self._known_by_now(access, query), None

    async def _with_turn(
        self,
        turns: Turns,
        turn: Turn,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> ManifestAnswer:
        answer = None
        try:
            # The turn of another worker may have ended just before this one began.
            answer = await self._known_by_now(access, query) or await self._find_or_get(
                access, query, head_answer, proves_first=proves_first
            )
            return answer
        finally:
            self._background.start(self._end_turn(turns, turn, answer))

    async def _end_turn(self, turns: Turns, turn: Turn, answer: ManifestAnswer | None) -> None:
        """End the turn when the others can find the manifest. No client waits for that."""
        if answer:
            await self._manifest_cache.when_shared(answer.digest, _UPLOAD_SECONDS)
        await turns.end(turn, added=[str(answer.digest)] if answer else [])

    async def _turn_over(self, turns: Turns, source: Source, names: list[str]) -> None:
        """Wait until no other worker or replica fetches the manifest, but no longer than a turn may last."""
        loop = asyncio.get_running_loop()
        end = loop.time() + TURN_SECONDS
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            if await turns.is_over(source, names) or loop.time() >= end:
                return
            await asyncio.sleep(pause)

    async def _known_by_now(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        """The manifest that another worker or replica has fetched by now, if this caller may get it without a request
        to the upstream.
        """
        target = query.reference.target
        if not isinstance(target, Tag):
            return await self._known_by_digest(access, target)
        key = query.tag_key(access.source)
        cached_tag = await self._cached_tags.find(key, classes_for(access.caller), latest=True) if key else None
        if cached_tag is None or not self._cached_tags.is_fresh(cached_tag):
            return None
        is_granted = await self._permissions.grants.live(access)
        content = await self._manifest_cache.get(access.source.upstream, cached_tag.digest) if is_granted else None
        if content is None:
            return None
        return ManifestAnswer(cached_tag.media_type, cached_tag.digest, len(content), content, is_hit=True)

    async def _known_by_digest(self, access: PullAccess, digest: Digest) -> ManifestAnswer | None:
        known = await self._permissions.known(access, _location(access, digest))
        content = await self._manifest_cache.get(access.source.upstream, digest) if known else None
        if known is None or content is None:
            return None
        return ManifestAnswer(known.link.media_type, digest, len(content), content, is_hit=True)

    async def _cached_meanwhile(
        self,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        *,
        proves_first: bool | None,
    ) -> ManifestAnswer | None:
        """A manifest that was cached after this request arrived: the fetch of another request may have ended just
        before this one began.
        """
        digest, upstream = query.reference.digest, access.source.upstream
        if head_answer is None and proves_first is False and digest:
            return await self._known_by_digest(access, digest)  # this caller may need no request to the upstream
        if head_answer is None and not proves_first:
            digests = await self._cached_tags.likely_digests(access, query)
            if not any([await self._manifest_cache.get(upstream, likely) for likely in digests]):
                return None
        return await self._found(access, query, head_answer or await self._head_or_none(access, query), None)

    async def _found(
        self,
        access: PullAccess,
        query: ManifestQuery,
        head_answer: ManifestAnswer | None,
        fetched: ManifestAnswer | None,
    ) -> ManifestAnswer | None:
        """The content that `head_answer` describes: from the cache, or else from the response that another request
        fetched.
        """
        answer = None
        if head_answer is None:
            # There is no HEAD response, but a request of the same caller with another token may just have proved the
            # permission.
            if fetched and await self._permissions.known(access, _location(access, fetched.digest)):
                answer = replace(fetched, is_hit=True)
        else:
            if fetched and fetched.digest == head_answer.digest:
                content = fetched.content
            else:
                content = await self._manifest_cache.get(access.source.upstream, head_answer.digest)
            if content is not None:
                check_manifest(head_answer.media_type, content)
                answer = head_answer.with_cached(content)
        if answer:
            await self._cached_tags.learn(access, query, answer)
        return answer

    def _key(self, access: PullAccess, query: ManifestQuery, *, head: bool) -> tuple[object, ...]:
        return (access.caller, access.credentials, access.source, str(query.reference), query.accept, head)

    async def _head(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        metadata, _ = await self._ask(access, query, head=True)
        digest = query.reference.digest or metadata.digest
        # A manifest is never empty. A length of 0 means that the upstream does not support HEAD for manifests.
        if digest is None or not metadata.size or metadata.media_type is None:
            return None
        if not identifies_manifest(metadata.media_type, metadata.digest):
            return None
        self._permissions.record(access, _location(access, digest), metadata)
        return ManifestAnswer(metadata.media_type, digest, metadata.size, None, metadata.warnings)

    async def _head_or_none(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer | None:
        """The HEAD response for this caller, about a manifest that another request has fetched."""
        try:
            return await self._head(access, query)
        except REFUSED_HEAD:
            return None  # a refused HEAD counts only if a GET is refused too

    async def _get(self, access: PullAccess, query: ManifestQuery) -> ManifestAnswer:
        metadata, content = await self._ask(access, query, head=False)
        # The requested digest takes precedence over the Docker-Content-Digest header.
        digest, signed = query.reference.digest or metadata.digest, signed_part(metadata.media_type, content)
        if digest is None:
            digest = Digest.of(signed)
        elif not (digest.matches(content) or digest.matches(signed)):
            source = access.source
            self._events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(digest)))
            raise UpstreamBroken("the upstream sent a manifest that does not match its digest")
        media_type = metadata.media_type or stated_media_type(content)
        check_manifest(media_type, content)
        self._events.emit(BytesFetched(len(content)))
        self._permissions.record(access, _location(access, digest), replace(metadata, media_type=media_type))
        # The digest of the withdrawn schema 1 covers only part of the bytes. The cache verifies a digest over all
        # bytes, so it does not store such a manifest.
        if digest.matches(content):
            await self._manifest_cache.put(access, digest, content)
        answer = ManifestAnswer(media_type, digest, len(content), content, metadata.warnings)
        # Stored before the next request may fetch, so that the next request finds it.
        await self._cached_tags.learn(access, query, answer)
        return answer

    async def _ask(self, access: PullAccess, query: ManifestQuery, *, head: bool) -> tuple[ResponseMetadata, bytes]:
        resource, accept = Resource.manifest(access.source, query.reference), query.accept or _ANY
        try:
            async with self._registry.open(UpstreamRequest(resource, access.credentials, head, accept)) as answer:
                self._back_offs.saw(access.source.upstream, access.caller, answer.metadata.allowance)
                return answer.metadata, b"" if head else await answer.read(MANIFEST_LIMIT)
        except UpstreamThrottled as error:
            self._back_offs.throttled(Asker(access.source.upstream, access.caller, manifests=True), error)
            raise
        except RegistryError as error:
            digest = query.reference.digest
            await self._permissions.refused(access, _location(access, digest) if digest else None, error)
            raise


def _location(access: PullAccess, digest: Digest) -> ContentLocation:
    return ContentLocation(access.source, ContentKind.MANIFEST, digest)
