"""RememberedKnowledgeIndex: the index in Redis, with a memory that one request in five seconds keeps right."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from adapters.index_records import LINKS, TAGS
from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_knowledge import RedisKnowledgeIndex, token_key, version_key
from application.concurrency import LruCache, SingleFlight
from application.ports.index import BELIEVED_SECONDS, CallerIdentity
from domain.digest import Digest
from domain.names import Tag
from domain.ports import Clock
from domain.records import CachedTag, CallerClass, CallerId, ContentLocation, Grant, Link
from domain.upstreams import Source, Upstream

T = TypeVar("T")

_REMEMBERED = 65536
"""Entries in memory."""
_COMPARED = 500
"""Repositories and tokens that one request compares."""


@dataclass
class _Known:
    """The entries of a repository, or of a token. `state`: the value of the key that changes together with an entry;
    `read_at`: when the key last had this value, in seconds since 1970.
    """

    state: bytes
    read_at: float
    entries: dict[object, Any] = field(default_factory=dict)


class RememberedKnowledgeIndex(RedisKnowledgeIndex):
    """Remembers grants, links, cached tags and the identities of tokens. An answer may be as old as `age` says.

    After BELIEVED_SECONDS, it compares the versions of all repositories that were used in the meantime in one request,
    and forgets the entries of those that have changed. The key of a token is its own version. So however many callers
    and repositories there are, cached content costs a worker one request in this time.

    What Redis does not have is not remembered, because another replica may learn it at any time.
    """

    def __init__(
        self,
        connection: RedisConnection,
        upstreams: Collection[Upstream],
        clock: Clock,
        *,
        links: int = LINKS,
        tags: int = TAGS,
    ) -> None:
        """See RedisKnowledgeIndex."""
        super().__init__(connection, upstreams, clock, links=links, tags=tags)
        self._known: LruCache[str, _Known] = LruCache(_REMEMBERED)
        self._used: dict[str, None] = {}
        """The keys that the next request compares, the last used one at the end."""
        self._comparison = SingleFlight()
        self._last_epoch: int | None = None

    def age(self, subject: Source | str) -> float:
        known = self._known.get(_state_key(subject))
        return self._clock.now() - known.read_at if known and self._is_believed(known) else 0.0

    async def find_link(self, location: ContentLocation, since: float = 0.0) -> Link | None:
        if since:
            return await super().find_link(location, since)
        return await self._find(location.source, location, lambda: self._read_link(location))

    async def keep_link(self, link: Link, now: float) -> None:
        await self._change(super().keep_link(link, now), link.location.source, link.location)

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        await self._change(super().forget_link(location, from_class), location.source, location)

    async def find_tags(self, source: Source, tag: Tag, *, latest: bool = False) -> list[CachedTag]:
        if latest:
            self._forget(source, tag)
        return list(await self._find(source, tag, lambda: self._read_tags(source, tag)))

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        await self._change(super().keep_tag(cached_tag), cached_tag.key.source, cached_tag.key.tag)

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        await self._change(super().forget_tags(source, tag, from_class), source, tag)

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        grant = await self._find(source, caller, lambda: self._read_grant(caller, source))
        if grant and grant.ends_at <= self._clock.now():  # another replica may have got a new one
            self._forget(source, caller)
            return await self._find(source, caller, lambda: self._read_grant(caller, source))
        return grant

    async def keep_grant(self, grant: Grant, until: float) -> None:
        await self._change(super().keep_grant(grant, until), grant.source, grant.caller)

    async def forget_grant(self, caller: CallerId, source: Source) -> None:
        await self._change(super().forget_grant(caller, source), source, caller)

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        return await self._find(fingerprint, fingerprint, lambda: self._read_token(fingerprint))

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None:
        await self._change(super().keep_token(fingerprint, identity), fingerprint, fingerprint)

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        self._known.clear()
        await super().forget_content(digests)

    async def epoch(self) -> int:
        found = await super().epoch()
        if found != self._last_epoch:
            self._known.clear()
            self._last_epoch = found
        return found

    # --- the memory ---

    async def _find(
        self, subject: Source | str, name: object, read: Callable[[], Awaitable[tuple[bytes | None, T]]]
    ) -> T:
        """The entry, from memory or from `read`. Raises SharedUnavailable."""
        key = _state_key(subject)
        while (known := self._known.get(key)) and name in known.entries:
            self._use(key)
            if self._is_believed(known):
                return cast("T", known.entries[name])
            await self._comparison.do(None, self._compare)
        asked_at = self._clock.now()
        state, found = await read()
        if found and state is not None:
            self._remember(key, _Known(state, asked_at), name, found)
        return found

    def _use(self, key: str) -> None:
        self._used.pop(key, None)
        self._used[key] = None
        if len(self._used) > _COMPARED:
            del self._used[next(iter(self._used))]

    async def _compare(self) -> None:
        """Forget what has changed. Raises SharedUnavailable."""
        keys = list(self._used)
        self._used.clear()
        asked_at = self._clock.now()
        states = await self._connection.values(keys)
        for key, state in zip(keys, states, strict=True):
            known = self._known.get(key)
            if known is None:
                continue
            if known.state == state:
                known.read_at = asked_at
            elif known.read_at < asked_at:  # it was not read again meanwhile
                self._known.pop(key)

    def _remember(self, key: str, read: _Known, name: object, found: object) -> None:
        """Entries that were read with another state do not count: they may have changed since."""
        known = self._known.get(key)
        if known and known.state == read.state:
            known.read_at = max(known.read_at, read.read_at)
        else:
            known = read
        known.entries[name] = found
        self._use(key)
        self._known.put(key, known, len(known.entries))

    async def _change(self, write: Awaitable[None], subject: Source | str, name: object | None) -> None:
        """Do what changes the entry; None: all entries. Also if that fails, the entry is not used any more."""
        try:
            await write
        finally:
            self._forget(subject, name)

    def _forget(self, subject: Source | str, name: object | None) -> None:
        key = _state_key(subject)
        if name is None:
            self._known.pop(key)
        elif known := self._known.get(key):
            known.entries.pop(name, None)

    def _is_believed(self, known: _Known) -> bool:
        return 0 <= self._clock.now() - known.read_at < BELIEVED_SECONDS


def _state_key(subject: Source | str) -> str:
    """`subject`: a repository, or the fingerprint of a token."""
    return token_key(subject) if isinstance(subject, str) else version_key(subject)
