"""The pinned images in SQLite."""

import secrets
from collections.abc import Sequence

from adapters.index_records import print_pinned_image, read_pinned_images
from adapters.storage.sqlite_database import SqliteDatabase
from application.ports.content import StorageFailed
from domain.pins import Pin, PinnedImage
from domain.ports import Clock

# It finds a row also if there are no pins, so that a failure can be told from that.
_ALL = """SELECT upstream, repository, reference, pinned_at, record FROM meta LEFT JOIN pins
    WHERE meta.name = 'epoch' ORDER BY upstream, repository, reference"""
_LEAD = """INSERT INTO leases VALUES ('pins', ?1, ?3)
    ON CONFLICT (name) DO UPDATE SET holder = ?1, ends_at = ?3 WHERE holder = ?1 OR ends_at <= ?2 RETURNING 1"""


class SqlitePinIndex:
    """Implements PinIndex."""

    def __init__(self, database: SqliteDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._holder = secrets.token_hex(8)

    async def all(self) -> Sequence[PinnedImage]:
        rows = await self._database.rows(_ALL)
        if not rows:
            raise StorageFailed("the pins cannot be read")
        return read_pinned_images(row for row in rows if row[0] is not None)

    async def keep(self, image: PinnedImage) -> None:
        row = (*image.pin.key, image.pinned_at, print_pinned_image(image))
        if not await self._database.change(("INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?, ?)", [row])):
            raise StorageFailed("the pin cannot be written")

    async def update(self, image: PinnedImage) -> None:
        statement = (
            "UPDATE pins SET record = ? WHERE upstream = ? AND repository = ? AND reference = ? AND pinned_at = ?"
        )
        await self._database.change((statement, [(print_pinned_image(image), *image.pin.key, image.pinned_at)]))

    async def forget(self, pin: Pin) -> bool:
        is_pinned = pin.key in {one.pin.key for one in await self.all()}
        statement = "DELETE FROM pins WHERE upstream = ? AND repository = ? AND reference = ?"
        if not await self._database.change((statement, [pin.key])):
            raise StorageFailed("the pin cannot be removed")
        return is_pinned

    async def lead(self, seconds: float) -> bool:
        now = self._clock.now()
        return bool(await self._database.rows(_LEAD, (self._holder, now, now + seconds)))
