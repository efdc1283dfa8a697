"""SharedRateLimits: exchanges back-offs and allowances with the workers of all replicas."""

import asyncio
from collections.abc import Iterable

from application.ports.rate_limits import AllowanceNews, RateLimitBoard
from application.ports.shared import SharedUnavailable
from application.upstreams.back_offs import Allowances, BackOffs
from application.upstreams.rate_limit_outbox import RateLimitOutbox
from domain.upstreams import Upstream

_PAUSE_SECONDS = 1.0


class SharedRateLimits:
    """Exchanges each second, in the background: no request waits for the shared index. So what one replica has learnt
    holds at the others two seconds later.
    """

    def __init__(
        self,
        board: RateLimitBoard | None,
        outbox: RateLimitOutbox | None,
        back_offs: BackOffs,
        allowances: Allowances,
        upstreams: Iterable[Upstream],
    ) -> None:
        """`board` and `outbox`: None if this replica shares nothing."""
        self._board = board
        self._outbox = outbox
        self._back_offs = back_offs
        self._allowances = allowances
        self._upstreams = {upstream.fingerprint: upstream for upstream in upstreams}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the exchange, which runs until `close`."""
        if self._board and self._outbox:
            self._task = asyncio.create_task(self._run(self._board, self._outbox))

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, board: RateLimitBoard, outbox: RateLimitOutbox) -> None:
        while True:
            await self._exchange(board, outbox)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _exchange(self, board: RateLimitBoard, outbox: RateLimitOutbox) -> None:
        sent = outbox.take()
        try:
            received = await board.exchange(sent)
        except SharedUnavailable:
            outbox.put_back(sent)
            return
        for news in received:
            upstream = self._upstreams.get(news.upstream)
            if upstream is None:
                continue  # another replica has another setting, for example during an upgrade
            if isinstance(news, AllowanceNews):
                self._allowances.learn(upstream, news.caller, news.allowance)
            else:
                self._back_offs.learn(upstream, news)
