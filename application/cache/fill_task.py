"""FillTask: a blob is filled here, or by another process that is followed, until it is whole or there is no hope."""

import asyncio

from application.cache.fill import DraftLost, Fill
from application.cache.fill_lead import BeganOtherwise, FillLead
from application.cache.fill_parts import FillParts
from application.ports.content_store import Draft, FollowedDraft
from domain.errors import UpstreamBroken

_LOOK_SECONDS = (0.002, 0.02)
"""How often another process's draft is looked at: while it grows, and while it does not."""
_SILENCE_SECONDS = 0.25
"""After so long without growth it is tried whether the one who fills it is still alive."""


class FillTask:
    """Runs apart from the clients' requests: whoever began it may leave."""

    def __init__(self, fill: Fill, parts: FillParts) -> None:
        self._fill = fill
        self._parts = parts

    async def run(self) -> bool:
        """Returns when nothing more will come. True: the upstream's content has changed under us, begin anew."""
        try:
            await self._run()
        except BeganOtherwise:
            self._fill.fails(UpstreamBroken("the upstream sent the blob with another beginning than before"))
            return True
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever reads is to meet it, and to tell of it
            self._fill.fails(error)
        except BaseException:
            self._fill.fails(UpstreamBroken("the mirror stopped fetching this blob"))
            raise
        return False

    async def _run(self) -> None:
        fill = self._fill
        followed: FollowedDraft | None = None
        while not fill.is_over:
            # Content that is here is adopted only where it is served for this upstream.
            anew = not await self._parts.provenance.serves(fill.upstream, fill.digest)
            lease = await self._parts.store.lease(fill.upstream, fill.digest, anew=anew)
            if lease is None:
                await self._adopt()
                return
            if fill.size and lease.file.identity != fill.file.identity:
                await self._give_back(lease)
                # To go on in another file would join an old beginning to a new rest.
                raise DraftLost
            if not isinstance(lease, FollowedDraft):
                fill.opens(lease.file)
                await FillLead(fill, lease, self._parts).run()
                return
            if followed and followed.file.identity == lease.file.identity:
                lease.file.close()  # still the same one, whose filler is only silent
            else:
                fill.opens(lease.file)
                followed = lease
            if not fill.opened.done():
                fill.opened.set_result(None)
            await self._follow(followed)

    async def _adopt(self) -> None:
        """It was made whole by somebody else just now."""
        stored = await self._parts.store.open(self._fill.digest)
        if stored is None:
            raise DraftLost  # and dropped again at once
        if self._fill.size and stored.file.identity != self._fill.file.identity:
            stored.file.close()
            raise DraftLost  # as above
        self._fill.opens(stored.file)
        self._fill.grows(stored.size)
        self._fill.is_whole()

    async def _give_back(self, lease: Draft | FollowedDraft) -> None:
        if not isinstance(lease, FollowedDraft):
            await lease.release(keep=lease.size > 0)
        lease.file.close()

    async def _follow(self, draft: FollowedDraft) -> None:
        """Returns when it is whole, or when whoever filled it may be gone."""
        fill, quiet = self._fill, 0.0
        while quiet < _SILENCE_SECONDS:
            state = draft.look()
            if state.size != fill.size:
                fill.grows(state.size)
                quiet = 0.0
            if state.is_verified:
                fill.is_whole()
                return
            if state.is_discarded:
                if not fill.size:
                    return
                # For want of room, or because it was wrong: who goes on alone checks the whole.
                raise DraftLost
            if not fill.readers:
                raise UpstreamBroken("nobody reads along any more")
            pause = _LOOK_SECONDS[quiet > _LOOK_SECONDS[1]]
            quiet += pause
            await asyncio.sleep(pause)
