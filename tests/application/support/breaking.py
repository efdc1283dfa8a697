"""An upstream whose first answers break off."""

import asyncio
from dataclasses import replace
from typing import Any

from domain.byte_ranges import ByteRange
from tests.application.support.crowd import Crowd
from tests.application.support.watched import BIG_DIGEST, PIECE
from tests.fakes.upstream import FakeAnswer


class Breaking(Crowd):
    """The upstream breaks the first answers off; `answers` may change any, by its number among the GETs."""

    def __init__(self, breaks: int = 1, after: int = 3 * PIECE, **settings: Any) -> None:
        super().__init__(**settings)
        self.breaks, self.after, self.number = breaks, after, 0
        self.upstream.alter = self.alter

    def alter(self, answer: FakeAnswer) -> FakeAnswer:
        if self.upstream.asked[-1].head:
            return answer
        self.number += 1
        cut = self.after if self.number <= self.breaks else None
        return self.answer(self.number, replace(answer, piece=PIECE, cut_after=cut))

    def answer(self, number: int, answer: FakeAnswer) -> FakeAnswer:
        return answer

    async def both(self) -> list[Any]:
        """Two readers from the beginning, and what is kept after them."""
        readers = self.read(), self.read()
        return await asyncio.gather(*readers, return_exceptions=True)

    @property
    def kept(self) -> bytes | None:
        return self.service.parts.store().content.get(BIG_DIGEST)

    @property
    def ranges(self) -> list[ByteRange | None]:
        return [fetch.byte_range for fetch in self.upstream.gets]
