"""What is where, in SQLite."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from adapters.storage.sqlite_database import Row, SqliteDatabase
from domain.digest import Digest
from domain.errors import DigestInvalid, NameInvalid, TagInvalid
from domain.names import RepositoryName, Tag
from domain.records import CachedTag, CallerClass, ContentKind, Item, Link, TagKey
from domain.upstreams import Source, Upstream

VARIANTS = 16
"""As many of each tag and class of callers; there are about as many kinds of clients."""
LINKS = 200_000
"""Rows for each upstream; one takes about 300 bytes, its indexes included."""
MARKS = 50_000
"""Rows for each upstream."""
_CHECKS = 256
_KEPT_SHARE = 0.9
_COUNT_LINKS = "SELECT count(*) FROM links WHERE upstream = ?"
# What is stored was used not long ago, or it would have made room itself.
_TRIM_LINKS = """DELETE FROM links WHERE upstream = ?1 AND (repository, kind, digest, given_to) IN (
    SELECT repository, kind, digest, given_to FROM links WHERE upstream = ?1
    ORDER BY EXISTS (SELECT 1 FROM usage WHERE usage.digest = links.digest) DESC, given_at DESC LIMIT -1 OFFSET ?2)"""
_COUNT_MARKS = "SELECT count(*) FROM tags WHERE upstream = ?"
_TRIM_MARKS = """DELETE FROM tags WHERE upstream = ?1 AND (repository, tag, variant, given_to) IN (
    SELECT repository, tag, variant, given_to FROM tags WHERE upstream = ?1
    ORDER BY EXISTS (SELECT 1 FROM usage WHERE usage.digest = tags.digest) DESC, checked_at DESC LIMIT -1 OFFSET ?2)"""


class SqliteLinkIndex:
    """Plays the LinkIndex. One row for each class of callers that an item was given to."""

    def __init__(self, database: SqliteDatabase, bound: int = LINKS) -> None:
        self._database = database
        self._bound = _Bound(database, _COUNT_LINKS, _TRIM_LINKS, bound)

    async def find(self, item: Item) -> Link | None:
        rows = await self._database.rows(
            "SELECT given_to, media_type, size FROM links WHERE upstream = ? AND repository = ? AND kind = ?"
            " AND digest = ? ORDER BY given_at DESC, given_to",
            _item(item),
        )
        return _read_link(item, rows)

    async def keep(self, link: Link, now: float) -> None:
        rows = [(*_item(link.item), given_to, link.media_type, link.size, now) for given_to in sorted(link.given_to)]
        await self._database.change(("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows))
        await self._bound.kept(link.item.source.upstream)

    async def forget(self, item: Item, from_class: CallerClass | None = None) -> None:
        statement = (
            "DELETE FROM links WHERE upstream = ? AND repository = ? AND kind = ? AND digest = ?"
            " AND given_to = coalesce(?, given_to)"
        )
        await self._database.change((statement, [(*_item(item), from_class)]))

    async def of(self, source: Source) -> list[Link]:
        rows = await self._database.rows(
            "SELECT kind, digest, given_to, media_type, size FROM links WHERE upstream = ? AND repository = ?"
            " ORDER BY kind, digest, given_at DESC, given_to",
            _source(source),
        )
        items = ((_read_item(source, *key), [row[2:] for row in same]) for key, same in groupby(rows, _kind_and_digest))
        links = (_read_link(item, same) for item, same in items if item is not None)
        return [link for link in links if link is not None]


class SqliteTagIndex:
    """Plays the TagIndex. One row for each variant and class of callers."""

    def __init__(self, database: SqliteDatabase, bound: int = MARKS) -> None:
        self._database = database
        self._bound = _Bound(database, _COUNT_MARKS, _TRIM_MARKS, bound)

    async def variants(self, source: Source, tag: Tag) -> list[CachedTag]:
        rows = await self._database.rows(
            "SELECT repository, tag, variant, given_to, digest, media_type, checked_at FROM tags"
            " WHERE upstream = ? AND repository = ? AND tag = ?",
            _tag(source, tag),
        )
        cached_tags = (_read_mark(source.upstream, row) for row in rows)
        return [cached_tag for cached_tag in cached_tags if cached_tag is not None]

    async def keep(self, cached_tag: CachedTag) -> None:
        tag, variant = _tag(cached_tag.key.source, cached_tag.key.tag), cached_tag.key.variant
        row = (*tag, variant, cached_tag.given_to, str(cached_tag.digest), cached_tag.media_type, cached_tag.checked_at)
        await self._database.change(
            ("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row]),
            (
                """DELETE FROM tags WHERE upstream = ?1 AND repository = ?2 AND tag = ?3 AND given_to = ?4
                AND variant NOT IN (
                SELECT variant FROM tags WHERE upstream = ?1 AND repository = ?2 AND tag = ?3 AND given_to = ?4
                ORDER BY variant = ?5 DESC, checked_at DESC, variant LIMIT ?6)""",
                [(*tag, cached_tag.given_to, variant, VARIANTS)],
            ),
        )
        await self._bound.kept(cached_tag.key.source.upstream)

    async def forget(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        statement = (
            "DELETE FROM tags WHERE upstream = ? AND repository = ? AND tag = coalesce(?, tag)"
            " AND given_to = coalesce(?, given_to)"
        )
        values = (*_source(source), None if tag is None else str(tag), from_class)
        await self._database.change((statement, [values]))

    async def of(self, upstream: Upstream) -> list[CachedTag]:
        rows = await self._database.rows(
            "SELECT repository, tag, variant, given_to, digest, media_type, checked_at FROM tags WHERE upstream = ?",
            (upstream.url,),
        )
        cached_tags = (_read_mark(upstream, row) for row in rows)
        return [cached_tag for cached_tag in cached_tags if cached_tag is not None]


class SqliteContentPlaces:
    """Plays the ContentPlaces."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def forget(self, digests: Iterable[Digest]) -> None:
        runs = [(str(digest),) for digest in digests]
        await self._database.change(
            ("DELETE FROM links WHERE digest = ?", runs),
            ("DELETE FROM tags WHERE digest = ?", runs),
            ("DELETE FROM sent WHERE digest = ?", runs),
        )


class _Bound:
    """Keeps the rows of each upstream below a number; its own rows make room, never those of another upstream."""

    def __init__(self, database: SqliteDatabase, count: str, trim: str, bound: int) -> None:
        self._database = database
        self._count, self._trim, self._bound = count, trim, bound
        self._every = max(1, bound // _CHECKS)
        self._kept: Counter[str] = Counter()

    async def kept(self, upstream: Upstream) -> None:
        """A row was added. Counted now and then, so that the number may be exceeded by a small share."""
        self._kept[upstream.url] += 1
        if self._kept[upstream.url] < self._every:
            return
        del self._kept[upstream.url]
        rows = await self._database.rows(self._count, (upstream.url,))
        if any(number > self._bound for (number,) in rows):
            await self._database.change((self._trim, [(upstream.url, int(self._bound * _KEPT_SHARE))]))


def read_digest(text: str) -> Digest | None:
    """What was written; None where it is none, or none any more."""
    try:
        return Digest.parse(text)
    except DigestInvalid:
        return None


def _read_item(source: Source, kind: str, text: str) -> Item | None:
    digest = read_digest(text)
    if digest is None or kind not in {known.value for known in ContentKind}:
        return None
    return Item(source, ContentKind(kind), digest)


def _kind_and_digest(row: Row) -> Row:
    return row[:2]


def _read_link(item: Item, rows: Sequence[Row]) -> Link | None:
    """Out of the rows of one item, the newest first: class, media type and size; None where there are none."""
    if not rows:
        return None
    _, media_type, size = rows[0]
    return Link(item, media_type, size, frozenset(CallerClass(given_to) for given_to, _, _ in rows))


def _read_mark(upstream: Upstream, row: Row) -> CachedTag | None:
    repository, tag, variant, given_to, digest, media_type, checked_at = row
    try:
        key = TagKey(Source(upstream, RepositoryName(repository)), Tag(tag), variant)
        return CachedTag(key, Digest.parse(digest), media_type, checked_at, CallerClass(given_to))
    except (NameInvalid, TagInvalid, DigestInvalid):
        return None


def _source(source: Source) -> tuple[str, ...]:
    return source.upstream.url, str(source.repository)


def _item(item: Item) -> tuple[str, ...]:
    return *_source(item.source), item.kind.value, str(item.digest)


def _tag(source: Source, tag: Tag) -> tuple[str, ...]:
    return *_source(source), str(tag)
