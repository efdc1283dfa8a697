"""The port to how upstreams wanted to be asked when they last answered."""

from typing import Protocol

from domain.trust import UpstreamAuth
from domain.upstreams import Upstream


class UpstreamAuthStore(Protocol):
    """Stances, kept across restarts: a mirror starts though its upstream is gone."""

    async def find(self, upstream: Upstream) -> UpstreamAuth | None: ...

    async def keep(self, upstream: Upstream, auth: UpstreamAuth) -> None: ...
