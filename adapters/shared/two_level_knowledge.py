"""What the mirror has learnt from upstreams, on two levels: the index of all replicas, and that of this replica."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from adapters.shared.redis_knowledge import RedisKnowledgeIndex
from application.concurrency import LruCache
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity, KnowledgeIndex
from application.ports.shared import SharedUnavailable
from domain.digest import Digest
from domain.names import Tag
from domain.ports import Clock
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    CachedTag,
    CallerClass,
    CallerId,
    ContentLocation,
    Grant,
    Link,
)
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream

T = TypeVar("T")
Work = Callable[[], Awaitable[None]]

_MISSED = 16384
"""Removals that are kept until the shared index can be asked again."""
_DELIVERED = 100
"""Missed removals that one request delivers, so that no request waits long for them."""
_COPIES = 16384
"""Copies that a process remembers, so that it does not write them again."""
_COPIED_GRANT_SECONDS = 30 * 86400.0
"""How long the copy of a grant is kept. How long it may be used is decided when it is read."""
_LONG_AGO = 0.0
"""In seconds since 1970: everything that was checked then has ended."""
_LOCAL_BITS = 64
"""Bits of the epoch that are from the local index."""


class TwoLevelKnowledgeIndex:
    """Implements KnowledgeIndex. Writes go to both levels, and the shared one is read: what a replica has learnt or
    removed holds on all replicas.

    While the shared index cannot be asked, the local one is read: for what this replica has learnt since then, and for
    what anonymous callers were given before, which is copied when it is read. Another replica may have met a refusal
    before, and callers with a login would lose most by a wrong answer. Their grants and tokens are never read there, so
    the upstream is asked about each of them. When the shared index is back, it is read again, and what was learnt
    meanwhile is learnt anew. Only removals are repeated there, before anything is read.

    Whether an upstream has sent some content is read on both levels at any time: it is a fact that gives no caller a
    right, and it never becomes wrong.
    """

    def __init__(self, shared: RedisKnowledgeIndex, local: KnowledgeIndex, clock: Clock) -> None:
        self._shared = shared
        self._local = local
        self._clock = clock
        self._answered_at = clock.now()
        """When the shared index last answered; before its first answer, when this index was created."""
        self._last_shared_epoch = 0
        self._missed: dict[object, Work] = {}
        """The removals that the shared index has missed, the oldest first."""
        self._is_delivering = False
        self._copies: LruCache[object, object] = LruCache(_COPIES)
        """What this process has copied from the shared index to the local one."""

    def age(self, subject: Source | str) -> float:
        return self._shared.age(subject)

    # --- what is in which repository ---

    async def find_link(self, location: ContentLocation, since: float = 0.0) -> Link | None:
        now = self._clock.now()
        try:
            link = await self._ask(lambda: self._shared.find_link(location, since))
        except SharedUnavailable:
            link = await self._local.find_link(location, since)
        else:
            if link and ANONYMOUS_CLASS in link.caller_classes:
                public = replace(link, caller_classes=frozenset({ANONYMOUS_CLASS}))
                await self._copy(location, public, lambda: self._local.keep_link(public, now))
            return link
        if link is None or link.caller_classes == {ANONYMOUS_CLASS}:
            return link
        recent = await self._local.find_link(location, max(since, self._answered_at))
        classes = (link.caller_classes & {ANONYMOUS_CLASS}) | (recent.caller_classes if recent else frozenset())
        return replace(link, caller_classes=classes) if classes else None

    async def links_of(self, source: Source) -> list[Link]:
        """The links of both levels. Only operators' commands ask, and no caller is served by the answer."""
        links = {link.location: link for link in await self._local.links_of(source)}
        with suppress(SharedUnavailable):
            links |= {link.location: link for link in await self._ask(lambda: self._shared.links_of(source))}
        return list(links.values())

    async def keep_link(self, link: Link, now: float) -> None:
        await self._write(self._local.keep_link(link, now), lambda: self._shared.keep_link(link, now))

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        await self._remove(
            (location, from_class),
            self._local.forget_link(location, from_class),
            lambda: self._shared.forget_link(location, from_class),
        )

    async def find_tags(self, source: Source, tag: Tag, *, latest: bool = False) -> list[CachedTag]:
        """Without the shared index, a tag that was given to other callers before is neither fresh nor served while the
        upstream is unavailable. It only makes the mirror ask by HEAD, which registries with a pull limit do not count,
        whether the upstream gives this caller the same manifest.
        """
        try:
            cached_tags = await self._ask(lambda: self._shared.find_tags(source, tag, latest=latest))
        except SharedUnavailable:
            return [
                one
                if one.caller_class == ANONYMOUS_CLASS or one.checked_at > self._answered_at
                else replace(one, checked_at=_LONG_AGO)
                for one in await self._local.find_tags(source, tag)
            ]
        for one in cached_tags:
            if one.caller_class == ANONYMOUS_CLASS:
                await self._copy(one.key, one, partial(self._local.keep_tag, one))
        return cached_tags

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        """The cached tags of both levels. Only operators' commands ask, and no caller is served by the answer."""
        cached_tags = {(one.key, one.caller_class): one for one in await self._local.tags_of(upstream)}
        with suppress(SharedUnavailable):
            shared = await self._ask(lambda: self._shared.tags_of(upstream))
            cached_tags |= {(one.key, one.caller_class): one for one in shared}
        return list(cached_tags.values())

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        await self._write(self._local.keep_tag(cached_tag), lambda: self._shared.keep_tag(cached_tag))

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        await self._remove(
            (source, tag, from_class),
            self._local.forget_tags(source, tag, from_class),
            lambda: self._shared.forget_tags(source, tag, from_class),
        )

    async def was_sent(self, upstream: Upstream, digest: Digest) -> bool:
        if await self._local.was_sent(upstream, digest):
            return True
        try:
            return await self._ask(lambda: self._shared.was_sent(upstream, digest))
        except SharedUnavailable:
            return False

    async def keep_sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        await self._write(
            self._local.keep_sent(upstream, digest, is_public=is_public),
            lambda: self._shared.keep_sent(upstream, digest, is_public=is_public),
        )

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        """Only on this replica: others may have the content. The eviction of the shared store removes the rest."""
        await self._local.forget_content(digests)

    # --- who may read what, and how upstreams authenticate ---

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        """Without the shared index, a grant from before its last answer has ended, because another replica may have met
        a refusal since. It still serves for as long as the upstream is unavailable, too.
        """
        try:
            grant = await self._ask(lambda: self._shared.find_grant(caller, source))
        except SharedUnavailable:
            grant = await self._local.find_grant(caller, source) if caller == ANONYMOUS_CALLER else None
        else:
            if grant and caller == ANONYMOUS_CALLER:
                until = grant.given_at + _COPIED_GRANT_SECONDS
                await self._copy((caller, source), grant, lambda: self._local.keep_grant(grant, until))
            return grant
        if grant and grant.given_at <= self._answered_at:
            return replace(grant, ends_at=min(grant.ends_at, grant.given_at))
        return grant

    async def keep_grant(self, grant: Grant, until: float) -> None:
        local = self._local.keep_grant(grant, until) if grant.caller == ANONYMOUS_CALLER else None
        await self._write(local, lambda: self._shared.keep_grant(grant, until))

    async def forget_grant(self, caller: CallerId, source: Source) -> None:
        await self._remove(
            (caller, source),
            self._local.forget_grant(caller, source),
            lambda: self._shared.forget_grant(caller, source),
        )

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        try:
            return await self._ask(lambda: self._shared.find_token(fingerprint))
        except SharedUnavailable:
            identity = await self._local.find_token(fingerprint)
        return identity if identity and identity.caller == ANONYMOUS_CALLER else None

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None:
        # Also that of a caller with a login, in place of an anonymous one.
        await self._write(
            self._local.keep_token(fingerprint, identity), lambda: self._shared.keep_token(fingerprint, identity)
        )

    async def find_upstream_auth(self, upstream: Upstream) -> UpstreamAuth | None:
        auth = None
        with suppress(SharedUnavailable):
            auth = await self._ask(lambda: self._shared.find_upstream_auth(upstream))
        return auth or await self._local.find_upstream_auth(upstream)

    async def keep_upstream_auth(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        await self._write(
            self._local.keep_upstream_auth(upstream, auth), lambda: self._shared.keep_upstream_auth(upstream, auth)
        )

    # --- the epoch ---

    async def epoch(self) -> int:
        """Contains the epochs of both levels, so that it changes with either."""
        with suppress(SharedUnavailable):
            self._last_shared_epoch = await self._ask(self._shared.epoch)
        return (self._last_shared_epoch << _LOCAL_BITS) + await self._local.epoch()

    async def advance_epoch(self) -> None:
        await self._local.advance_epoch()
        try:
            await self._ask(self._shared.advance_epoch)
        except SharedUnavailable as error:
            raise StorageFailed(f"the other replicas were not told: {error}") from error

    # --- both levels ---

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of the shared index. Raises SharedUnavailable, also while it has not got all removals that it has
        missed.
        """
        if self._missed:
            await self._deliver()
        answer = await ask()
        self._answered_at = self._clock.now()
        return answer

    async def _copy(self, what: object, value: object, keep: Work) -> None:
        """Store on this replica what another one has learnt of public content. Written only when it has changed."""
        if self._copies.get(what) != value:
            self._copies.put(what, value)
            await keep()

    async def _write(self, local: Awaitable[None] | None, shared: Work) -> None:
        """`local`: None if it is not written there."""

        async def write_shared() -> None:
            with suppress(SharedUnavailable):
                await self._ask(shared)

        await asyncio.gather(write_shared(), *([local] if local else []))

    async def _remove(self, what: object, local: Awaitable[None], shared: Work) -> None:
        """If the shared index cannot be asked now, the removal is repeated later. Otherwise, when it is back, it would
        still grant what an upstream has refused meanwhile.
        """

        async def remove_shared() -> None:
            try:
                await self._ask(shared)
            except SharedUnavailable:
                self._missed[what] = shared
                if len(self._missed) > _MISSED:
                    del self._missed[next(iter(self._missed))]

        await asyncio.gather(remove_shared(), local)

    async def _deliver(self) -> None:
        """Repeat missed removals. Raises SharedUnavailable if some remain."""
        if self._is_delivering:
            raise SharedUnavailable("the shared index gets the removals that it has missed")
        self._is_delivering = True
        try:
            for what, removal in list(self._missed.items())[:_DELIVERED]:
                await removal()
                self._missed.pop(what, None)
        finally:
            self._is_delivering = False
        if self._missed:
            raise SharedUnavailable("the shared index has not got all removals that it has missed")
