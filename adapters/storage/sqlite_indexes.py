"""What is where, in SQLite."""

from adapters.storage.sqlite_database import Row, SqliteDatabase
from domain.digest import Digest
from domain.errors import DigestInvalid, NameInvalid, TagInvalid
from domain.names import RepositoryName, Tag
from domain.records import ContentKind, Item, Link, TagKey, TagMark
from domain.upstreams import Source, Upstream

VARIANTS = 16
"""As many of each tag; there are about as many kinds of clients."""


class SqliteLinkIndex:
    """Plays the LinkIndex."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def find(self, item: Item) -> Link | None:
        rows = await self._database.rows(
            "SELECT media_type, size FROM links WHERE upstream = ? AND repository = ? AND kind = ? AND digest = ?",
            _item(item),
        )
        return next((Link(item, media_type, size) for media_type, size in rows), None)

    async def keep(self, link: Link) -> None:
        row = (*_item(link.item), link.media_type, link.size)
        await self._database.change(("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?)", [row]))

    async def forget(self, item: Item) -> None:
        statement = "DELETE FROM links WHERE upstream = ? AND repository = ? AND kind = ? AND digest = ?"
        await self._database.change((statement, [_item(item)]))

    async def of(self, source: Source) -> list[Link]:
        rows = await self._database.rows(
            "SELECT kind, digest, media_type, size FROM links WHERE upstream = ? AND repository = ?", _source(source)
        )
        items = ((_read_item(source, *row[:2]), *row[2:]) for row in rows)
        return [Link(item, media_type, size) for item, media_type, size in items if item is not None]


class SqliteTagIndex:
    """Plays the TagIndex."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def variants(self, source: Source, tag: Tag) -> list[TagMark]:
        rows = await self._database.rows(
            "SELECT repository, tag, variant, digest, media_type, checked_at FROM tags"
            " WHERE upstream = ? AND repository = ? AND tag = ?",
            _tag(source, tag),
        )
        marks = (_read_mark(source.upstream, row) for row in rows)
        return [mark for mark in marks if mark is not None]

    async def keep(self, mark: TagMark) -> None:
        tag, variant = _tag(mark.key.source, mark.key.tag), mark.key.variant
        row = (*tag, variant, str(mark.digest), mark.media_type, mark.checked_at)
        await self._database.change(
            ("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)", [row]),
            (
                """DELETE FROM tags WHERE upstream = ?1 AND repository = ?2 AND tag = ?3 AND variant NOT IN (
                SELECT variant FROM tags WHERE upstream = ?1 AND repository = ?2 AND tag = ?3
                ORDER BY variant = ?4 DESC, checked_at DESC, variant LIMIT ?5)""",
                [(*tag, variant, VARIANTS)],
            ),
        )

    async def forget(self, source: Source, tag: Tag | None) -> None:
        if tag is None:
            statement, values = "DELETE FROM tags WHERE upstream = ? AND repository = ?", _source(source)
        else:
            statement, values = "DELETE FROM tags WHERE upstream = ? AND repository = ? AND tag = ?", _tag(source, tag)
        await self._database.change((statement, [values]))

    async def of(self, upstream: Upstream) -> list[TagMark]:
        rows = await self._database.rows(
            "SELECT repository, tag, variant, digest, media_type, checked_at FROM tags WHERE upstream = ?",
            (upstream.url,),
        )
        marks = (_read_mark(upstream, row) for row in rows)
        return [mark for mark in marks if mark is not None]


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


def _read_mark(upstream: Upstream, row: Row) -> TagMark | None:
    repository, tag, variant, digest, media_type, checked_at = row
    try:
        key = TagKey(Source(upstream, RepositoryName(repository)), Tag(tag), variant)
        return TagMark(key, Digest.parse(digest), media_type, checked_at)
    except (NameInvalid, TagInvalid, DigestInvalid):
        return None


def _source(source: Source) -> tuple[str, ...]:
    return source.upstream.url, str(source.repository)


def _item(item: Item) -> tuple[str, ...]:
    return *_source(item.source), item.kind.value, str(item.digest)


def _tag(source: Source, tag: Tag) -> tuple[str, ...]:
    return *_source(source), str(tag)
