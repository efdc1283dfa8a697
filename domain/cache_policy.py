"""CachePolicy: how long what was learnt may be believed, and how much may be kept."""

from collections.abc import Iterable
from dataclasses import dataclass

from domain.records import ANONYMOUS_CALLER, Grant, TagMark, is_mirror

_KEPT_SHARE = 0.9
"""Where room is made at all, a tenth is made: else each new blob would have to push another one out."""


@dataclass(frozen=True)
class CachePolicy:
    """Times in seconds. `tag_ttl`: a tag is believed without asking; `grant_ttl`: so is a caller's right to a
    repository; `stale_ttl`: so is all of that while the upstream cannot be asked.
    """

    tag_ttl: float
    grant_ttl: float
    stale_ttl: float

    def tag_is_fresh(self, mark: TagMark, now: float) -> bool:
        return now < self.fresh_until(mark)

    def fresh_until(self, mark: TagMark) -> float:
        return mark.checked_at + self.tag_ttl

    def grant_end(self, now: float, token_ends_at: float) -> float:
        """A right is proven anew after a while, and never outlives the token that proved it."""
        return min(now + self.grant_ttl, token_ends_at)

    def outlives_an_outage(self, grant: Grant, now: float) -> bool:
        """Whether what was let through stays readable while nobody can ask the upstream again.

        For repositories that it gave to nobody in particular, and for the mirror's own right, which no caller can
        have lost. A caller's own right may have been taken back meanwhile: it ends when it ends.
        """
        return now < grant.given_at + self.stale_ttl

    def may_stand_in(self, mark: TagMark, now: float) -> bool:
        """Whether what a tag meant may still be told while nobody can ask the upstream again."""
        return now < mark.checked_at + self.stale_ttl

    def kept_for(self, grant: Grant) -> float:
        """Until when the grant is worth remembering, in seconds since 1970."""
        lasting = grant.caller == ANONYMOUS_CALLER or is_mirror(grant.caller)
        return max(grant.ends_at, grant.given_at + self.stale_ttl) if lasting else grant.ends_at


@dataclass(frozen=True)
class Room:
    """`bound`: how many bytes content and drafts may take together."""

    bound: int

    def is_for(self, size: int) -> bool:
        """Whether content of this size can be kept at all; more than the kept share would leave at once again."""
        return size <= self.bound * _KEPT_SHARE

    def to_free(self, used: int, wanted: int = 0) -> int:
        """How many bytes have to go, 0 while `used` and `wanted` bytes more fit."""
        if used + wanted <= self.bound:
            return 0
        return used + wanted - int(self.bound * _KEPT_SHARE)


def victims(candidates: Iterable[tuple[str, int]], to_free: int) -> list[str]:
    """The first candidates (name and size in bytes, least recently used first) that free that many bytes."""
    chosen: list[str] = []
    for name, size in candidates:
        if to_free <= 0:
            break
        chosen.append(name)
        to_free -= size
    return chosen
