"""DownloadPolicy: how many connections to an upstream one download may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.upstreams import Upstream


@dataclass(frozen=True)
class DownloadPolicy:
    """`connections`: the most connections of one download at the same time; `by_upstream`: the same for upstreams for
    which the operator configured another number. With 1, a blob is fetched in one piece.
    """

    connections: int = 4
    by_upstream: Mapping[Upstream, int] = field(default_factory=dict)

    def connections_to(self, upstream: Upstream) -> int:
        return self.by_upstream.get(upstream, self.connections)
