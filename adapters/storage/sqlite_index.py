"""The index in SQLite: what upstreams have said, and what is stored."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from adapters.index_records import (
    LINKS,
    TAGS,
    VARIANTS,
    print_upstream_auth,
    read_link,
    read_tags,
    read_upstream_auth,
)
from adapters.storage.sqlite_database import Change, Database, Row
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity, Occurrence, Stored, Used
from domain.digest import Digest
from domain.errors import DigestInvalid, NameInvalid, TagInvalid
from domain.names import RepositoryName, Tag
from domain.ports import Clock
from domain.records import CachedTag, CallerClass, CallerId, ContentKind, ContentLocation, Grant, Link
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream

T = TypeVar("T")

_CHECKS = 256
_KEPT_SHARE = 0.9
_SWEEP_SECONDS = 60.0
_PINNED_CONTENT = "SELECT tree.key FROM pins, json_each(pins.record, '$.tree') AS tree"
"""The digests of all content that pinned images need."""
# These remove rows only if there are more than ?2, and keep ?3 then. Rows of stored content are removed last, because
# stored content was used not long ago, and those of pinned images after all others.
_TRIM_LINKS = f"""DELETE FROM links WHERE upstream = ?1 AND (repository, kind, digest, given_to) IN (
    SELECT repository, kind, digest, given_to FROM links
    WHERE upstream = ?1 AND (SELECT count(*) FROM links WHERE upstream = ?1) > ?2
    ORDER BY digest IN ({_PINNED_CONTENT}) DESC, EXISTS (SELECT 1 FROM usage WHERE usage.digest = links.digest) DESC,
    given_at DESC LIMIT -1 OFFSET ?3)"""  # noqa: S608 - a constant
_TRIM_TAGS = f"""DELETE FROM tags WHERE upstream = ?1 AND (repository, tag, variant, given_to) IN (
    SELECT repository, tag, variant, given_to FROM tags
    WHERE upstream = ?1 AND (SELECT count(*) FROM tags WHERE upstream = ?1) > ?2
    ORDER BY digest IN ({_PINNED_CONTENT}) DESC, EXISTS (SELECT 1 FROM usage WHERE usage.digest = tags.digest) DESC,
    checked_at DESC LIMIT -1 OFFSET ?3)"""  # noqa: S608 - a constant
_TRIM_VARIANTS = """DELETE FROM tags WHERE upstream = ?1 AND repository = ?2 AND tag = ?3 AND given_to = ?4
    AND variant NOT IN (
    SELECT variant FROM tags WHERE upstream = ?1 AND repository = ?2 AND tag = ?3 AND given_to = ?4
    ORDER BY variant = ?5 DESC, checked_at DESC, variant LIMIT ?6)"""
# A few milliseconds. The row without an upstream contains the content that no known upstream has sent.
_STEP_ROWS = 2000
_STEP_BY_UPSTREAM = """SELECT upstream, count(*), sum(size), max(digest)
    FROM (SELECT digest, size FROM usage WHERE digest > ? ORDER BY digest LIMIT ?) LEFT JOIN sent USING (digest)
    GROUP BY upstream"""

# ?1: an array of [upstream, repository, classes]. Each repository costs a few steps along the primary key of `tags`,
# however many tags it has.
_FIRST_TAGS = """SELECT wanted.key, (SELECT json_group_array(tag) FROM (
        SELECT DISTINCT tag FROM tags
        WHERE upstream = json_extract(wanted.value, '$[0]') AND repository = json_extract(wanted.value, '$[1]')
        AND given_to IN (SELECT value FROM json_each(wanted.value, '$[2]')) ORDER BY tag LIMIT ?2))
    FROM json_each(?1) AS wanted"""


class SqliteKnowledgeIndex:
    """Implements KnowledgeIndex. Links and cached tags have one row for each class of callers."""

    def __init__(self, database: Database, clock: Clock, *, links: int = LINKS, tags: int = TAGS) -> None:
        """`links` and `tags`: the largest number of rows for each upstream."""
        self._database = database
        self._too_many_links = _Bound(_TRIM_LINKS, links)
        self._too_many_tags = _Bound(_TRIM_TAGS, tags)
        self._ended_grants = _Sweep("DELETE FROM grants WHERE kept_until <= ?", clock)
        self._ended_tokens = _Sweep("DELETE FROM tokens WHERE ends_at <= ?", clock)
        self._last_epoch = 0

    # --- what is in which repository ---

    def age(self, subject: Source | str) -> float:  # noqa: ARG002 - every answer is read from the file
        return 0.0

    async def find_link(self, location: ContentLocation, since: float = 0.0) -> Link | None:
        rows = await self._database.rows(
            "SELECT given_to, media_type, size FROM links WHERE upstream = ? AND repository = ? AND kind = ?"
            " AND digest = ? AND given_at > ? ORDER BY given_at DESC, given_to",
            (*_location(location), since),
        )
        return read_link(location, rows) if rows else None

    async def links_of(self, source: Source) -> list[Link]:
        rows = await self._database.rows(
            "SELECT kind, digest, given_to, media_type, size FROM links WHERE upstream = ? AND repository = ?"
            " ORDER BY kind, digest, given_at DESC, given_to",
            _source(source),
        )
        links = []
        for (kind, digest), same in groupby(rows, itemgetter(0, 1)):
            with suppress(ValueError, DigestInvalid):
                location = ContentLocation(source, ContentKind(kind), Digest.parse(digest))
                links.append(read_link(location, [row[2:] for row in same]))
        return links

    async def keep_link(self, link: Link, now: float) -> None:
        rows = [
            (*_location(link.location), caller_class, link.media_type, link.size, now)
            for caller_class in sorted(link.caller_classes)
        ]
        await self._database.change(
            ("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows),
            *self._too_many_links.due(link.location.source.upstream),
        )

    async def forget_link(self, location: ContentLocation, from_class: CallerClass | None = None) -> None:
        statement = (
            "DELETE FROM links WHERE upstream = ? AND repository = ? AND kind = ? AND digest = ?"
            " AND given_to = coalesce(?, given_to)"
        )
        await self._database.change((statement, [(*_location(location), from_class)]))

    async def find_tags(self, source: Source, tag: Tag, *, latest: bool = False) -> list[CachedTag]:  # noqa: ARG002 - the same
        rows = await self._database.rows(
            "SELECT repository, tag, variant, given_to, digest, media_type, checked_at FROM tags"
            " WHERE upstream = ? AND repository = ? AND tag = ?",
            (*_source(source), str(tag)),
        )
        return read_tags(source.upstream, rows)

    async def tags_of(self, upstream: Upstream) -> list[CachedTag]:
        rows = await self._database.rows(
            "SELECT repository, tag, variant, given_to, digest, media_type, checked_at FROM tags WHERE upstream = ?",
            (upstream.url,),
        )
        return read_tags(upstream, rows)

    async def keep_tag(self, cached_tag: CachedTag) -> None:
        key, caller_class = cached_tag.key, cached_tag.caller_class
        tag = (*_source(key.source), str(key.tag))
        row = (*tag, key.variant, caller_class, str(cached_tag.digest), cached_tag.media_type, cached_tag.checked_at)
        await self._database.change(
            ("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row]),
            (_TRIM_VARIANTS, [(*tag, caller_class, key.variant, VARIANTS)]),
            *self._too_many_tags.due(key.source.upstream),
        )

    async def forget_tags(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        statement = (
            "DELETE FROM tags WHERE upstream = ? AND repository = ? AND tag = coalesce(?, tag)"
            " AND given_to = coalesce(?, given_to)"
        )
        values = (*_source(source), None if tag is None else str(tag), from_class)
        await self._database.change((statement, [values]))

    async def was_sent(self, upstream: Upstream, digest: Digest) -> bool:
        rows = await self._database.rows(
            "SELECT 1 FROM sent WHERE digest = ? AND (upstream = ? OR is_public) LIMIT 1", (str(digest), upstream.url)
        )
        return bool(rows)

    async def keep_sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        statement = (
            "INSERT INTO sent VALUES (?, ?, ?)"
            " ON CONFLICT (digest, upstream) DO UPDATE SET is_public = max(is_public, excluded.is_public)"
        )
        await self._database.change((statement, [(str(digest), upstream.url, int(is_public))]))

    async def forget_content(self, digests: Iterable[Digest]) -> None:
        runs = [(str(digest),) for digest in digests]
        await self._database.change(
            ("DELETE FROM links WHERE digest = ?", runs),
            ("DELETE FROM tags WHERE digest = ?", runs),
            ("DELETE FROM sent WHERE digest = ?", runs),
        )

    # --- who may read what, and how upstreams authenticate ---

    async def find_grant(self, caller: CallerId, source: Source) -> Grant | None:
        rows = await self._database.rows(
            "SELECT given_at, ends_at FROM grants WHERE caller = ? AND upstream = ? AND repository = ?",
            (caller, *_source(source)),
        )
        return next((Grant(caller, source, given_at, ends_at) for given_at, ends_at in rows), None)

    async def keep_grant(self, grant: Grant, until: float) -> None:
        row = (grant.caller, *_source(grant.source), grant.given_at, grant.ends_at, until)
        await self._database.change(
            ("INSERT OR REPLACE INTO grants VALUES (?, ?, ?, ?, ?, ?)", [row]), *self._ended_grants.due()
        )

    async def forget_grant(self, caller: CallerId, source: Source) -> None:
        statement = "DELETE FROM grants WHERE caller = ? AND upstream = ? AND repository = ?"
        await self._database.change((statement, [(caller, *_source(source))]))

    async def find_token(self, fingerprint: str) -> CallerIdentity | None:
        rows = await self._database.rows("SELECT caller, ends_at FROM tokens WHERE fingerprint = ?", (fingerprint,))
        return next((CallerIdentity(CallerId(caller), ends_at) for caller, ends_at in rows), None)

    async def keep_token(self, fingerprint: str, identity: CallerIdentity) -> None:
        row = (fingerprint, identity.caller, identity.ends_at)
        await self._database.change(
            ("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", [row]), *self._ended_tokens.due()
        )

    async def find_upstream_auth(self, upstream: Upstream) -> UpstreamAuth | None:
        rows = await self._database.rows("SELECT challenges FROM stances WHERE upstream = ?", (upstream.url,))
        return next((read_upstream_auth(text) for (text,) in rows), None)

    async def keep_upstream_auth(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        row = (upstream.url, print_upstream_auth(auth))
        await self._database.change(("INSERT OR REPLACE INTO stances VALUES (?, ?)", [row]))

    # --- the epoch ---

    async def epoch(self) -> int:
        rows = await self._database.rows("SELECT value FROM meta WHERE name = 'epoch'")
        self._last_epoch = next((value for (value,) in rows), self._last_epoch)
        return self._last_epoch

    async def advance_epoch(self) -> None:
        if not await self._database.change(("UPDATE meta SET value = value + 1 WHERE name = 'epoch'", [()])):
            raise StorageFailed("the index cannot be written")


class SqliteUsageIndex:
    """Implements UsageIndex."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, entries: list[Used]) -> None:
        rows = [(str(one.digest), one.size, one.used_at) for one in entries]
        await self._database.change(("INSERT OR REPLACE INTO usage VALUES (?, ?, ?)", rows))

    async def touch(self, times: Mapping[Digest, float]) -> None:
        # max(): workers write in batches, so the last write does not always contain the last use.
        runs = [(used_at, str(digest)) for digest, used_at in times.items()]
        await self._database.change(("UPDATE usage SET used_at = max(used_at, ?) WHERE digest = ?", runs))

    async def forget(self, digests: list[Digest]) -> None:
        await self._database.change(("DELETE FROM usage WHERE digest = ?", [(str(one),) for one in digests]))

    async def all(self) -> list[Used]:
        return _read_uses(await self._database.rows("SELECT digest, size, used_at FROM usage ORDER BY used_at, digest"))

    async def evictable(self) -> list[Used]:
        # One query: if a query for the pins failed alone, pinned content would look evictable.
        return _read_uses(
            await self._database.rows(
                f"SELECT digest, size, used_at FROM usage WHERE digest NOT IN ({_PINNED_CONTENT})"  # noqa: S608 - constant
                " ORDER BY used_at, digest"
            )
        )

    async def pinned(self) -> Stored:
        rows = await self._database.rows(
            f"SELECT count(*), coalesce(sum(size), 0) FROM usage WHERE digest IN ({_PINNED_CONTENT})"  # noqa: S608 - constant
        )
        return next((Stored(count, size) for count, size in rows), Stored())

    async def total(self) -> Stored:
        rows = await self._database.rows("SELECT count(*), coalesce(sum(size), 0) FROM usage")
        return next((Stored(count, size) for count, size in rows), Stored())

    async def by_upstream(self) -> dict[str, Stored]:
        counts, sizes, last = Counter[str | None](), Counter[str | None](), ""
        while rows := await self._database.rows(_STEP_BY_UPSTREAM, (last, _STEP_ROWS)):
            for upstream, count, size, _ in rows:
                counts[upstream] += count
                sizes[upstream] += size
            last = max(digest for *_, digest in rows)
        return {upstream: Stored(counts[upstream], sizes[upstream]) for upstream in counts if upstream is not None}

    async def find(self, digests: Iterable[Digest]) -> dict[Digest, Used]:
        wanted = json.dumps([str(digest) for digest in digests])
        rows = await self._database.rows(
            "SELECT digest, size, used_at FROM usage WHERE digest IN (SELECT value FROM json_each(?))", (wanted,)
        )
        return {one.digest: one for one in _read_uses(rows)}


class SqliteImageIndex:
    """Implements ImageIndex. Each query walks along the primary key of its table, or along the index by digest."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def repositories(
        self, upstream: Upstream, classes: frozenset[CallerClass], containing: str, after: str, limit: int
    ) -> list[RepositoryName]:
        rows = await self._database.rows(
            "SELECT DISTINCT repository FROM tags WHERE upstream = ? AND repository > ? AND instr(repository, ?)"
            " AND given_to IN (SELECT value FROM json_each(?)) ORDER BY repository LIMIT ?",
            (upstream.url, after, containing, _listed(classes), limit),
        )
        return _readable(RepositoryName, NameInvalid, rows)

    async def first_tags(
        self, repositories: Mapping[Source, frozenset[CallerClass]], limit: int
    ) -> dict[Source, list[Tag]]:
        sources = list(repositories)
        wanted = json.dumps([[*_source(source), sorted(repositories[source])] for source in sources])
        found: dict[Source, list[Tag]] = {source: [] for source in sources}
        for number, tags in await self._database.rows(_FIRST_TAGS, (wanted, limit)):
            found[sources[number]] = _readable(Tag, TagInvalid, ((tag,) for tag in sorted(json.loads(tags))))
        return found

    async def tags_in(self, source: Source, classes: frozenset[CallerClass], after: str, limit: int) -> list[CachedTag]:
        # SQLite takes the other columns from the row with the maximum (sqlite.org/lang_select.html, section 2.5).
        rows = await self._database.rows(
            "SELECT repository, tag, variant, given_to, digest, media_type, max(checked_at) FROM tags"
            " WHERE upstream = ? AND repository = ? AND tag > ? AND given_to IN (SELECT value FROM json_each(?))"
            " GROUP BY tag ORDER BY tag LIMIT ?",
            (*_source(source), after, _listed(classes), limit),
        )
        return read_tags(source.upstream, rows)

    async def manifests_in(self, source: Source, classes: frozenset[CallerClass], limit: int) -> list[Digest]:
        rows = await self._database.rows(
            "SELECT digest, max(given_at) FROM links WHERE upstream = ? AND repository = ? AND kind = ?"
            " AND given_to IN (SELECT value FROM json_each(?)) GROUP BY digest ORDER BY 2 DESC, digest LIMIT ?",
            (*_source(source), ContentKind.MANIFEST.value, _listed(classes), limit),
        )
        return _readable(Digest.parse, DigestInvalid, rows)

    async def occurrences(self, digests: Iterable[Digest], limit: int) -> list[Occurrence]:
        wanted = {str(digest): digest for digest in digests}
        rows = await self._database.rows(
            "SELECT upstream, repository, digest, given_to FROM links"
            " WHERE digest IN (SELECT value FROM json_each(?)) LIMIT ?",
            (json.dumps(list(wanted)), limit),
        )
        return [
            Occurrence(upstream, repository, wanted[digest], CallerClass(given_to))
            for upstream, repository, digest, given_to in rows
        ]


def _listed(classes: frozenset[CallerClass]) -> str:
    """The value of a parameter for json_each: SQLite takes no lists."""
    return json.dumps(sorted(classes))


def _readable(read: Callable[[str], T], error: type[Exception], rows: Iterable[Row]) -> list[T]:
    """The first column of the rows, without values that cannot be read."""
    found = []
    for text, *_ in rows:
        with suppress(error):
            found.append(read(text))
    return found


def _read_uses(rows: Iterable[Row]) -> list[Used]:
    used = []
    for digest, size, used_at in rows:
        with suppress(DigestInvalid):
            used.append(Used(Digest.parse(digest), size, used_at))
    return used


class _Bound:
    """Limits the number of rows of each upstream. Rows of other upstreams are not removed."""

    def __init__(self, trim: str, bound: int) -> None:
        self._trim, self._bound = trim, bound
        self._every = max(1, bound // _CHECKS)
        self._added: Counter[str] = Counter()

    def due(self, upstream: Upstream) -> list[Change]:
        """The change to make with a row that is added, if it is time to count the rows. They are not counted each time,
        so there may be a few more rows than the bound.
        """
        self._added[upstream.url] += 1
        if self._added[upstream.url] < self._every:
            return []
        del self._added[upstream.url]
        return [(self._trim, [(upstream.url, self._bound, int(self._bound * _KEPT_SHARE))])]


class _Sweep:
    """Removes expired rows when a row is added, but at most once a minute."""

    def __init__(self, statement: str, clock: Clock) -> None:
        self._statement, self._clock = statement, clock
        self._due_at = 0.0

    def due(self) -> list[Change]:
        now = self._clock.now()
        if now < self._due_at:
            return []
        self._due_at = now + _SWEEP_SECONDS
        return [(self._statement, [(now,)])]


def _source(source: Source) -> tuple[str, ...]:
    return source.upstream.url, str(source.repository)


def _location(location: ContentLocation) -> tuple[str, ...]:
    return *_source(location.source), location.kind.value, str(location.digest)
