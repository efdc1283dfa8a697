"""The history in its SQLite file."""

from collections.abc import Collection

from adapters.storage.sqlite_database import Database, Row
from domain.documents import parse_json, print_json
from domain.history import NUMBERS, RESOLUTIONS, Bucket, Totals

_LARGEST = 2**62
"""No number of a bucket comes near it, and sums of a few fit into the 64 bits of a number in shared memory."""


class SqliteHistoryArchive:
    """Implements HistoryArchive. The number of rows is bounded by the numbers of buckets that the resolutions keep."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[Bucket]:
        rows = await self._database.rows("SELECT seconds, start, numbers FROM buckets")
        return [bucket for row in rows if (bucket := _read(row))]

    async def save(self, buckets: Collection[Bucket], now: float) -> None:
        saved = [(one.seconds, one.start, print_json(one.totals.numbers).decode()) for one in buckets]
        oldest = [(one.seconds, one.start_of(now) - one.seconds * one.kept, now) for one in RESOLUTIONS]
        await self._database.change(
            ("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)", saved),
            ("DELETE FROM buckets WHERE seconds = ? AND (start <= ? OR start > ?)", oldest),
        )


def _read(row: Row) -> Bucket | None:
    """None for a row that this version of the service would not write."""
    seconds, start, text = row
    try:
        numbers = parse_json(text)
    except ValueError:
        return None
    if not (
        isinstance(seconds, int)
        and isinstance(start, int)
        and isinstance(numbers, list)
        and len(numbers) == NUMBERS
        and all(type(number) is int and 0 <= number < _LARGEST for number in numbers)
    ):
        return None
    return Bucket(seconds, start, Totals.of(numbers))
