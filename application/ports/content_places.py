"""The port to what leads to content: links and cached tags, found by its digest."""

from collections.abc import Iterable
from typing import Protocol

from domain.digest import Digest
from domain.records import CallerClass


class ContentPlaces(Protocol):
    """The same links and tags as LinkIndex and TagIndex have, of all upstreams and repositories."""

    async def forget(self, digests: Iterable[Digest]) -> None:
        """Removes all links and cached tags that lead to this content, and the record of which upstream sent it
        (SentContent); it is not stored any more.
        """
        ...

    async def upstreams_of(self, digest: Digest, given_to: CallerClass) -> frozenset[str]:
        """The addresses of the upstreams that gave this digest to this class of callers, in whatever repository. That
        an upstream said so, perhaps to a HEAD only, is no proof that it has the content.
        """
        ...
