"""What the mirror has learnt from upstreams, in Redis, for all replicas."""

import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import cast

from adapters.index_records import (
    LINKS,
    TAGS,
    VARIANTS,
    print_upstream_auth,
    read_link,
    read_tags,
    read_upstream_auth,
)
from adapters.shared.redis_connection import RedisConnection, key
from application.ports.index import CallerIdentity
from domain.digest import Digest
from domain.errors import DigestInvalid
from domain.names import RepositoryName, Tag
from domain.ports import Clock
from domain.records import CachedTag, CallerClass, CallerId, ContentKind, ContentLocation, Grant, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream
from domain.value import Value

_LIFETIME = 90 * 86400.0
"""Seconds after which an entry that no upstream has confirmed again is removed."""
_TRIMMED = 16
"""Entries that one write removes if there are too many. It is more than a write adds."""
_PAGE_SIZE = 500
"""About how many entries one request reads of a long list. It must end within the time limit of the connection."""

# An entry is a line of JSON values between tabs; JSON has no tab or line break inside a value. The class and the
# variant identify it within its field, and its time says which one is the oldest.
_READ = """
-- Returns the version of a repository and one value. KEYS: the version, and a string or a hash. ARGV: the version if
-- there is none, its lifetime in milliseconds, the field of the hash.
local version = redis.call('GET', KEYS[1])
if not version then
    version = ARGV[1]
    redis.call('SET', KEYS[1], version, 'PX', ARGV[2])
end
if ARGV[3] then return {version, redis.call('HGET', KEYS[2], ARGV[3])} end
return {version, redis.call('GET', KEYS[2])}
"""
_KEEP = r"""
-- Put lines in place of those with the same class and variant, and keep the newest ones of each class.
-- KEYS: a hash, and the version of the repository. ARGV: the field, the most lines of a class, the lifetime in
-- milliseconds, the version if the field exists, the new lines.
local function class(line) return string.match(line, '^[^\t]*') end
local function identity(line) return string.match(line, '^[^\t]*\t[^\t]*') end
local function time(line) return tonumber(string.match(line, '^[^\t]*\t[^\t]*\t([^\t]*)')) or 0 end
local lines, is_new, count, older, removed = {}, {}, {}, {}, {}
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3]) end
for i = 5, #ARGV do
    lines[#lines + 1] = ARGV[i]
    is_new[identity(ARGV[i])] = true
    count[class(ARGV[i])] = (count[class(ARGV[i])] or 0) + 1
end
for line in string.gmatch(redis.call('HGET', KEYS[1], ARGV[1]) or '', '[^\n]+') do
    if not is_new[identity(line)] then older[#older + 1] = line end
end
table.sort(older, function(one, other) return time(one) > time(other) end)
for _, line in ipairs(older) do
    count[class(line)] = (count[class(line)] or 0) + 1
    if count[class(line)] > tonumber(ARGV[2]) then
        removed[#removed + 1] = identity(line)
    else
        lines[#lines + 1] = line
    end
end
redis.call('HSET', KEYS[1], ARGV[1], table.concat(lines, '\n'))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return removed
"""
_REMOVE = r"""
-- Remove the lines that begin with a prefix. KEYS: a hash, and the version of the repository. ARGV: the new
-- version, its lifetime in milliseconds, pairs of a field and a prefix.
-- Returns the field and the identity of each removed line.
local removed = {}
for i = 3, #ARGV, 2 do
    local value, kept = redis.call('HGET', KEYS[1], ARGV[i]), {}
    for line in string.gmatch(value or '', '[^\n]+') do
        if string.sub(line, 1, #ARGV[i + 1]) == ARGV[i + 1] then
            removed[#removed + 1] = ARGV[i] .. '\t' .. (string.match(line, '^[^\t]*\t[^\t]*') or '')
        else
            kept[#kept + 1] = line
        end
    end
    if #kept > 0 then
        redis.call('HSET', KEYS[1], ARGV[i], table.concat(kept, '\n'))
    elseif value then
        redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return removed
"""
_FORGET_GRANT = """
-- KEYS: a grant, and the version of the repository. ARGV: the new version, and its lifetime in milliseconds.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
"""
_RANK = r"""
-- Add members to a ranking by time, and return the oldest ones if there are too many or if they have expired.
-- KEYS: a sorted set. ARGV: the largest number of members, the time up to which they have expired, the largest number
-- to return, the lifetime in milliseconds, the time of the new members, the new members.
for i = 6, #ARGV do redis.call('ZADD', KEYS[1], ARGV[5], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local surplus = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[1])
local expired = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[2])
local number = math.min(math.max(surplus, expired), tonumber(ARGV[3]))
return number > 0 and redis.call('ZRANGE', KEYS[1], 0, number - 1) or {}
"""
_KEEP_SENT = r"""
-- KEYS: a hash. ARGV: the upstream, 1 for public content or 0, the lifetime in milliseconds.
if ARGV[2] == '1' or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""
_WAS_SENT = r"""
-- KEYS: a hash. ARGV: the upstream, the lifetime in milliseconds. A record that is read is in use, so it lives on.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 1 end
for _, is_public in ipairs(redis.call('HVALS', KEYS[1])) do
    if is_public == '1' then return 1 end
end
return 0
"""
_PAGE = """
-- KEYS: a hash or a sorted set. ARGV: HSCAN or ZSCAN, the cursor, about how many pairs to return.
return redis.call(ARGV[1], KEYS[1], ARGV[2], 'COUNT', ARGV[3])
"""
_EPOCH = """
-- KEYS: a string. ARGV: its value if Redis has none.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
"""


class _Entry(Value, frozen=True):
    """A link or a cached tag as it was given to one class of callers. `variant`: empty for a link; `time`: seconds
    since 1970; `content`: the size of a link, the digest of a cached tag.
    """

    caller_class: str
    variant: str
    time: float
    media_type: str
    content: int | str | None

    def __str__(self) -> str:
        cells = (self.caller_class, self.variant, float(self.time), self.media_type, self.content)
        return "\t".join(map(json.dumps, cells))


class _Table(Value, frozen=True):
    """The links or the cached tags. `of_repository`: the kind of the hash that has them; `ranking`: the kind of the
    sorted set that has the time of each entry of an upstream; `bound`: the largest number of entries of an upstream;
    `variants`: the same of each field and class of callers.
    """

    of_repository: str
    ranking: str
    bound: int
    variants: int


class RedisKnowledgeIndex:
    """Has the methods of KnowledgeIndex. Unlike the port says, they raise SharedUnavailable if Redis cannot be asked,
    so that TwoLevelKnowledgeIndex can use another index instead.

    Each repository has a hash of its links, whose fields are kind and digest, and a hash of its cached tags, whose
    fields are tags. The keys of one repository have the same hash tag. Names of keys contain fingerprints of callers
    and tokens, never credentials.

    Each repository has a *version*: a random string, which is replaced in the same step in which a link, a cached tag
    or a grant is removed, or in which a link or a tag that exists is changed. RememberedKnowledgeIndex compares it. It
    is also replaced if there was nothing to remove, because Redis may have lost what a replica remembers.

    The number of entries of each upstream is limited. Beyond the limit, the ones that were confirmed longest ago are
    removed, whether their content is stored or not. Entries that were not confirmed for 90 days are removed, too.
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
        """`upstreams`: those from whose entries `forget_content` removes; `links` and `tags`: the largest number for
        each upstream.
        """
        self._connection = connection
        self._upstreams = upstreams
        self._clock = clock
        self._links = _Table("links", "links-by-time", links, 1)
        self._tags = _Table("tags", "tags-by-time", tags, VARIANTS)

    # --- what is in which repository ---

    def age(self, subject: Source | str) -> float:  # noqa: ARG002 - every answer is read from Redis
        return 0.0

    async def find_link(self, location: ContentLocation, since: float = 0.0) -> Link | None:
        return (await self._read_link(location, since))[1]

    async def _read_link(self, location: ContentLocation, since: float = 0.0) -> tuple[bytes, Link | None]:
        """The version of the repository, and the link."""
        version, entries = await self._read_field(self._links, location.source, _field(location))
        return version, _link(location, [entry for entry in entries if entry.time > since])

    async def links_of(self, source: Source) -> list[Link]:
        found = []
        async for field, entries in self._fields(_of_repository(self._links, source)):
            kind, _, digest = field.partition(" ")
            with suppress(ValueError, DigestInvalid):
                link = _link(ContentLocation(source, ContentKind(kind), Digest.parse(digest)), entries)
                found += [link] if link else []
        return found

    async def keep_link(self, link: Link, now: float) -> None:
        entries = [
            _Entry(caller_class, "", now, link.media_type, link.size) for caller_class in sorted(link.caller_classes)
        ]
        await self._keep(self._links, link.location.source, _field(link.location), entries)

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        await self._remove(self._links, location.source, [(_field(location), _prefix(from_class))])

    async def find_tags(self, source: Source, tag: Tag, *, latest: bool = False) -> list[CachedTag]:  # noqa: ARG002 - the same
        return (await self._read_tags(source, tag))[1]

    async def _read_tags(self, source: Source, tag: Tag) -> tuple[bytes, list[CachedTag]]:
        """The version of the repository, and the cached tags."""
        version, entries = await self._read_field(self._tags, source, str(tag))
        return version, _cached_tags(source, str(tag), entries)

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        return [
            cached_tag
            for source in await self._repositories(self._tags, upstream)
            async for tag, entries in self._fields(_of_repository(self._tags, source))
            for cached_tag in _cached_tags(source, tag, entries)
        ]

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        key_of_tag, digest = cached_tag.key, str(cached_tag.digest)
        entry = _Entry(
            cached_tag.caller_class, key_of_tag.variant, cached_tag.checked_at, cached_tag.media_type, digest
        )
        await self._keep(self._tags, key_of_tag.source, str(key_of_tag.tag), [entry])

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        if tag is not None:
            tags = [str(tag)]
        else:
            tags = [name async for name, _ in self._fields(_of_repository(self._tags, source))]
        await self._remove(self._tags, source, [(name, _prefix(from_class)) for name in tags])

    async def was_sent(self, upstream: Upstream, digest: Digest) -> bool:
        args: list[str | int] = [upstream.fingerprint, _milliseconds(_LIFETIME)]
        return await self._connection.call(_WAS_SENT, [key("sent", str(digest))], args) == 1

    async def keep_sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        args: list[str | int] = [upstream.fingerprint, int(is_public), _milliseconds(_LIFETIME)]
        await self._connection.call(_KEEP_SENT, [key("sent", str(digest))], args)

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        gone = {str(digest) for digest in digests}
        for upstream in self._upstreams if gone else ():
            for source in await self._repositories(self._links, upstream):
                fields = [field async for field, _ in self._fields(_of_repository(self._links, source))]
                useless = [(field, "") for field in fields if field.partition(" ")[2] in gone]
                await self._remove(self._links, source, useless)
            for source in await self._repositories(self._tags, upstream):
                useless = [
                    (tag, _prefix(entry.caller_class, entry.variant))
                    async for tag, entries in self._fields(_of_repository(self._tags, source))
                    for entry in entries
                    if entry.content in gone
                ]
                await self._remove(self._tags, source, useless)
        for digest in gone:
            await self._delete(key("sent", digest))

    # --- who may read what, and how upstreams authenticate ---

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        return (await self._read_grant(caller, source))[1]

    async def _read_grant(self, caller: CallerId, source: Source) -> tuple[bytes, Grant | None]:
        """The version of the repository, and the grant."""
        version, text = await self._read_value(source, _grant_key(caller, source))
        match _read(text):
            case [float(given_at), float(ends_at)]:
                return version, Grant(caller, source, given_at, ends_at)
        return version, None

    async def keep_grant(self, grant: Grant, until: float) -> None:
        text = json.dumps([float(grant.given_at), float(grant.ends_at)])
        await self._set_until(_grant_key(grant.caller, grant.source), text, until)

    async def forget_grant(self, caller: CallerId, source: Source) -> None:
        keys = [_grant_key(caller, source), version_key(source)]
        await self._connection.call(_FORGET_GRANT, keys, [_random_version(), _milliseconds(_LIFETIME)])

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        return (await self._read_token(fingerprint))[1]

    async def _read_token(self, fingerprint: str) -> tuple[bytes | None, CallerIdentity | None]:
        """The entry as it is stored, and what it says."""
        text = await self._get(token_key(fingerprint))
        match _read(text):
            case [str(caller), float(ends_at)]:
                return text, CallerIdentity(CallerId(caller), ends_at)
        return text, None

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None:
        text = json.dumps([identity.caller, float(identity.ends_at)])
        await self._set_until(token_key(fingerprint), text, identity.ends_at)

    async def find_upstream_auth(self, upstream: Upstream) -> UpstreamAuth | None:
        text = await self._get(key("upstream-auth", upstream.fingerprint))
        return None if text is None else read_upstream_auth(text)

    async def keep_upstream_auth(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        # Without an end: it is written only when it changes, and there is one for each upstream.
        name, text = key("upstream-auth", upstream.fingerprint), print_upstream_auth(auth)
        await self._connection.run(lambda redis: redis.set(name, text))

    # --- the epoch ---

    async def epoch(self) -> int:
        """Random, so that it differs from the last one also if Redis has lost its data since."""
        value = await self._connection.call(_EPOCH, [_epoch_key()], [_random_epoch()])
        return int(cast("bytes", value))

    async def advance_epoch(self) -> None:
        await self._connection.run(lambda redis: redis.set(_epoch_key(), _random_epoch()))

    # --- entries of hashes ---

    async def _keep(self, table: _Table, source: Source, field: str, entries: Sequence[_Entry]) -> None:
        """Store the entries, which have the same time. Ranked first, so that every stored entry is counted."""
        time, lifetime = entries[0].time, _milliseconds(_LIFETIME)
        members = [_member(source, field, json.dumps(one.caller_class), json.dumps(one.variant)) for one in entries]
        ranked: list[str | float] = [table.bound, time - _LIFETIME, _TRIMMED, lifetime, time, *members]
        surplus = await self._connection.call(_RANK, [_ranking(table, source.upstream)], ranked)
        kept: list[str | float] = [field, table.variants, lifetime, _random_version(), *map(str, entries)]
        removed = await self._connection.call(_KEEP, [_of_repository(table, source), version_key(source)], kept)
        await self._unrank(table, source.upstream, [_member(source, field, one) for one in _texts(removed)])
        await self._trim(table, source.upstream, _texts(surplus))

    async def _trim(self, table: _Table, upstream: Upstream, members: Sequence[str]) -> None:
        """Remove the entries with these members of the ranking."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for member in members:
            repository, field, identity = member.split("\t", 2)
            found[repository].append((field, identity + "\t"))
        for repository, prefixes in found.items():
            await self._remove_lines(table, Source(upstream, RepositoryName(repository)), prefixes)
        await self._unrank(table, upstream, members)

    async def _remove(self, table: _Table, source: Source, prefixes: Sequence[tuple[str, str]]) -> None:
        """Remove the entries of the fields whose lines begin with the prefixes."""
        for start in range(0, len(prefixes), _PAGE_SIZE):
            removed = await self._remove_lines(table, source, prefixes[start : start + _PAGE_SIZE])
            await self._unrank(table, source.upstream, [_member(source, one) for one in removed])

    async def _remove_lines(self, table: _Table, source: Source, prefixes: Sequence[tuple[str, str]]) -> list[str]:
        """Returns the field and the identity of each removed line."""
        keys = [_of_repository(table, source), version_key(source)]
        words = [word for pair in prefixes for word in pair]
        return _texts(await self._connection.call(_REMOVE, keys, [_random_version(), _milliseconds(_LIFETIME), *words]))

    async def _unrank(self, table: _Table, upstream: Upstream, members: Sequence[str]) -> None:
        if members:
            await self._connection.run(lambda redis: redis.zrem(_ranking(table, upstream), *members))

    async def _repositories(self, table: _Table, upstream: Upstream) -> list[Source]:
        """The repositories that have entries, sorted by name."""
        members = [member async for member, _ in self._pages("ZSCAN", _ranking(table, upstream))]
        names = {member.decode().partition("\t")[0] for member in members}
        return [Source(upstream, RepositoryName(name)) for name in sorted(names)]

    async def _read_field(self, table: _Table, source: Source, field: str) -> tuple[bytes, list[_Entry]]:
        """The version of the repository, and the entries of the field."""
        version, text = await self._read_value(source, _of_repository(table, source), field)
        return version, _entries(text)

    async def _read_value(self, source: Source, name: str, *field: str) -> tuple[bytes, bytes | None]:
        """The version of the repository, and the value of a string or of a field of a hash."""
        args: list[str | int] = [_random_version(), _milliseconds(_LIFETIME), *field]
        return cast("tuple[bytes, bytes | None]", await self._connection.call(_READ, [version_key(source), name], args))

    async def _fields(self, name: str) -> AsyncIterator[tuple[str, list[_Entry]]]:
        """The fields of a hash with their entries. The hash may change meanwhile."""
        seen: set[bytes] = set()
        async for field, text in self._pages("HSCAN", name):
            if field not in seen:  # a field may be returned twice
                seen.add(field)
                yield field.decode(), _entries(text)

    async def _pages(self, command: str, name: str) -> AsyncIterator[tuple[bytes, bytes]]:
        """The pairs in a hash or a sorted set, read page by page. `command`: HSCAN or ZSCAN."""
        cursor = 0
        while True:
            result = await self._connection.call(_PAGE, [name], [command, cursor, _PAGE_SIZE])
            next_cursor, page = cast("tuple[bytes, list[bytes]]", result)
            for pair in zip(page[::2], page[1::2], strict=True):
                yield pair
            cursor = int(next_cursor)
            if not cursor:
                return

    # --- strings ---

    async def _get(self, name: str) -> bytes | None:
        return cast("bytes | None", await self._connection.run(lambda redis: redis.get(name)))

    async def _set_until(self, name: str, text: str, until: float) -> None:
        """`until`: seconds since 1970. Redis gets a duration, because its clock may differ from those of replicas."""
        lifetime = _milliseconds(until - self._clock.now())
        await self._connection.run(lambda redis: redis.set(name, text, px=lifetime))

    async def _delete(self, name: str) -> None:
        await self._connection.run(lambda redis: redis.delete(name))


def _tag_of(source: Source) -> str:
    """The hash tag of all keys of a repository."""
    return f"{source.upstream.fingerprint}/{source.repository}"


def _of_repository(table: _Table, source: Source) -> str:
    return key(table.of_repository, _tag_of(source))


def version_key(source: Source) -> str:
    """The key of the version of a repository."""
    return key("version", _tag_of(source))


def token_key(fingerprint: str) -> str:
    """The key of the identity of a token."""
    return key("token", fingerprint)


def _grant_key(caller: CallerId, source: Source) -> str:
    return key("grant", _tag_of(source), caller)


def _ranking(table: _Table, upstream: Upstream) -> str:
    return key(table.ranking, upstream.fingerprint)


def _epoch_key() -> str:
    return key("epoch", "all")


def _random_epoch() -> int:
    return secrets.randbits(48)


def _random_version() -> str:
    return secrets.token_hex(8)


def _field(location: ContentLocation) -> str:
    return f"{location.kind.value} {location.digest}"


def _prefix(caller_class: str | None, variant: str | None = None) -> str:
    """The beginning of the lines of this class and variant; None: of all."""
    words = [json.dumps(word) + "\t" for word in (caller_class, variant) if word is not None]
    return "".join(words)


def _member(source: Source, *words: str) -> str:
    """The member of a ranking: repository, field, class and variant."""
    return "\t".join((str(source.repository), *words))


def _milliseconds(seconds: float) -> int:
    """A lifetime for Redis, which accepts no 0."""
    return max(1, int(min(seconds, _LIFETIME) * 1000))


def _texts(result: object) -> list[str]:
    """The strings in the response of a script."""
    return [text.decode() for text in cast("list[bytes]", result)]


def _entries(text: bytes | None) -> list[_Entry]:
    """The entries in a field, the newest first."""
    lines = text.split(b"\n") if text else []
    found = [entry for line in lines if (entry := _read_entry(line))]
    return sorted(found, key=attrgetter("time"), reverse=True)


def _read_entry(line: bytes) -> _Entry | None:
    match [_read(cell) for cell in line.split(b"\t")]:
        case [str(caller_class), str(variant), float(time), str(media_type), int() | str() | None as content]:
            return _Entry(caller_class, variant, time, media_type, content)
    return None


def _read(text: bytes | None) -> object:
    """The JSON value; None if there is none, or if it is not JSON."""
    try:
        return json.loads(text or b"null")
    except ValueError:
        return None


def _link(location: ContentLocation, entries: Sequence[_Entry]) -> Link | None:
    rows = [(entry.caller_class, entry.media_type, entry.content) for entry in entries]
    return read_link(location, rows) if rows else None


def _cached_tags(source: Source, tag: str, entries: Iterable[_Entry]) -> list[CachedTag]:
    return read_tags(
        source.upstream,
        (
            (str(source.repository), tag, one.variant, one.caller_class, one.content, one.media_type, one.time)
            for one in entries
        ),
    )
