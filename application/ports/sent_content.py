"""The port to which upstream has sent which content in full."""

from typing import Protocol

from domain.digest import Digest
from domain.upstreams import Upstream


class SentContent(Protocol):
    """Kept across restarts and shared by all workers, for as long as the content is stored."""

    async def keep(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        """All bytes of the content came from this upstream and were right. `is_public`: to an anonymous caller."""
        ...

    async def serves(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether this upstream has sent the content in full, or any upstream has sent it in full to an anonymous
        caller.
        """
        ...
