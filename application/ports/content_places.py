"""The port to what leads to content: links and cached tags, found by its digest."""

from collections.abc import Iterable
from typing import Protocol

from domain.digest import Digest


class ContentPlaces(Protocol):
    """The same links and tags as LinkIndex and TagIndex have, of all upstreams and repositories."""

    async def forget(self, digests: Iterable[Digest]) -> None:
        """Removes all links and cached tags that lead to this content, and the record of which upstream sent it
        (SentContent); it is not stored any more.
        """
        ...
