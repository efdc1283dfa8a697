"""FillLead: downloads a blob into a draft, and goes on with what broke off."""

import asyncio
from collections import deque

from application.cache.batches import Batches
from application.cache.callers import Ask
from application.cache.fill import Fill
from application.cache.fill_parts import FillParts
from application.cache.outages import OUTAGE
from application.cache.retries import Retries
from application.ports.content_store import Draft, StorageFull, StorageRefused
from application.ports.upstream_registry import Answer, Facts, Fetch, Resource
from domain.content import ByteRange
from domain.digest import Bytes
from domain.documents import one_line
from domain.errors import (
    ContentUnknown,
    Denied,
    RangeUnsatisfiable,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
)
from domain.events import BytesFetched, FillResumed, FillStarted, WrongContent
from domain.records import ContentKind, Item

_LOST_RIGHT = (UpstreamChallenged, Denied, ContentUnknown)


class BeganOtherwise(Exception):
    """What the upstream sends now does not go with what it sent before; the old draft leads nowhere."""


class _WrongBlob(Exception):
    """All of it came, and it is not what its digest says. No outage: to ask again would bring the same again."""


class FillLead:
    """Holds the lease of one draft, and ends it."""

    def __init__(self, fill: Fill, draft: Draft, parts: FillParts) -> None:
        self._fill = fill
        self._draft = draft
        self._parts = parts
        self._right = 0
        self._room_until = draft.size
        """Up to this offset of the blob there is room in the cache."""
        # Of bytes that were here before, it is not known to whom the upstream gave them.
        self._is_public = not draft.size

    async def run(self) -> None:
        """Returns when the blob is whole. Raises what ended it early."""
        self._fill.grows(self._draft.size)
        self._parts.events.emit(FillStarted())
        try:
            await self._until_whole()
        except _WrongBlob:
            # The commit has discarded it.
            raise UpstreamBroken("the upstream sent a blob that is not what its digest says") from None
        except (BeganOtherwise, StorageRefused):
            await asyncio.shield(self._draft.release(keep=False))
            raise
        except BaseException:
            # Whoever asks next goes on from here.
            await asyncio.shield(self._draft.release(keep=self._draft.size > 0))
            raise
        finally:
            self._parts.sweep.promise(self._fill.upstream, self._fill.digest, 0)

    async def _until_whole(self) -> None:
        retries = Retries(self._parts.retries, self._parts.clock)
        while True:
            before = self._draft.size
            try:
                await self._receive()
            except _LOST_RIGHT as refused:
                await self._next_right(refused)
            except OUTAGE as fault:
                if self._draft.size > before:
                    retries.progressed()
                if not self._fill.opened.done():
                    raise
                await retries.wait(fault)
                self._tell_resumed(fault)
            else:
                return

    async def _next_right(self, refused: RegistryError) -> None:
        """A token may end while a large blob comes; whoever reads along may have a better one."""
        ask = self._fill.asks[self._right]
        await self._parts.rights.refused(ask, self._item(ask), refused)
        if not self._fill.opened.done() or self._right + 1 >= len(self._fill.asks):
            raise refused
        self._right += 1
        self._tell_resumed(refused)

    def _tell_resumed(self, reason: RegistryError) -> None:
        upstream = self._fill.asks[self._right].source.upstream.url
        self._parts.events.emit(FillResumed(upstream, str(self._fill.digest), one_line(reason.message)))

    async def _receive(self) -> None:
        """One answer of the upstream, and the verdict when it has come to its end."""
        fill, draft, offset = self._fill, self._draft, self._draft.size
        ask = fill.asks[self._right]
        asked = ByteRange(offset, None) if offset else None
        fetch = Fetch(Resource.blob(ask.source, fill.digest), ask.right, byte_range=asked)
        try:
            async with self._parts.registry.open(fetch) as answer:
                position = await self._place(ask, answer.facts, offset)
                await self._pour(answer, position)
        except RangeUnsatisfiable as nothing_left:
            if not offset:
                raise
            if nothing_left.size not in {None, offset}:
                raise BeganOtherwise from None
        if fill.total is not None and draft.size != fill.total:
            raise UpstreamBroken("the upstream broke the blob off")
        size = draft.size
        if not await draft.commit():
            source = ask.source
            self._parts.events.emit(WrongContent(source.upstream.url, str(source.repository), str(fill.digest)))
            raise _WrongBlob
        self._parts.provenance.sent(fill.upstream, fill.digest, is_public=self._is_public)
        fill.is_whole()
        # Not waited for, since readers are, and not to be lost where the service stops now.
        self._parts.background.start(self._parts.sweep.added(fill.digest, size))

    async def _place(self, ask: Ask, facts: Facts, offset: int) -> int:
        """Where in the blob the answer's body begins: where we asked (checked), or at 0 where ranges are unknown."""
        fill, span = self._fill, facts.span
        total = facts.size if span is None else facts.whole_size
        if span is not None and (span.start != offset or total not in {None, span.stop}):
            raise UpstreamBroken("the upstream sent another range than was asked")
        if fill.total is not None and total not in {None, fill.total}:
            raise BeganOtherwise
        self._parts.rights.record(ask, self._item(ask), facts)
        self._is_public = self._is_public and self._parts.provenance.is_public(ask)
        if not fill.opened.done():
            fill.total = total
            fill.opened.set_result(facts)
        fill.total = total if fill.total is None else fill.total
        if fill.total is not None and not self._parts.sweep.has_room_for_all_of(fill.total):
            raise StorageFull("the blob is larger than the share of the cache for what is arriving")
        return 0 if span is None else offset

    async def _pour(self, answer: Answer, position: int) -> None:
        batches = Batches(self._draft, self._write, self._grown)
        known = self._draft.size
        try:
            async for piece in answer.pieces():
                self._parts.events.emit(BytesFetched(len(piece)))
                repeated = piece[: max(0, known - position)]
                if repeated and not await self._draft.holds(position, repeated):
                    # An old beginning and a new rest would never be right together, and readers have had the old.
                    raise BeganOtherwise
                position += len(piece)
                if fresh := piece[len(repeated) :]:
                    await self._demand_room(position)
                    await batches.add(fresh)
        finally:
            await batches.finish()  # also where it breaks off: what has come is kept

    async def _demand_room(self, end: int) -> None:
        """Room is made as bytes arrive, for all up to this offset of the blob and a step more: a declared size evicts
        nothing.
        """
        fill, missing = self._fill, end - self._room_until
        if missing > 0:
            most = None if fill.total is None else fill.total - self._room_until
            self._room_until += await self._parts.sweep.make_room_in_draft(fill.upstream, fill.digest, missing, most)

    async def _write(self, pieces: deque[Bytes]) -> None:
        try:
            await self._draft.append(pieces)
        except StorageFull:
            await self._parts.sweep.make_room(sum(map(len, pieces)))
            await self._draft.append(pieces)

    def _grown(self) -> None:
        fill, size = self._fill, self._draft.size
        if size == fill.size:
            return
        self._parts.sweep.promise(fill.upstream, fill.digest, self._room_until - size)
        fill.grows(size)

    def _item(self, ask: Ask) -> Item:
        return Item(ask.source, ContentKind.BLOB, self._fill.digest)
