"""What a registry lets somebody pull in a while, as it says itself, and how long it asks to be left alone."""

import re
from dataclasses import dataclass

from domain.http_fields import parse_http_date

_NUMBER = re.compile(r"[0-9]{1,15}")
_LOW_SHARE = 0.1


@dataclass(frozen=True)
class RateLimit:
    """What one answer says: `remaining` of `limit` manifests may still be fetched; `window` is in seconds."""

    limit: int
    remaining: int
    window: int

    def seen(self, at: float) -> "Allowance":
        """The same, with the time at which it was said, in seconds since 1970."""
        return Allowance(self.limit, self.remaining, self.window, at)


@dataclass(frozen=True)
class Allowance(RateLimit):
    """`seen_at`: when it was said, in seconds since 1970."""

    seen_at: float

    @property
    def is_low(self) -> bool:
        return self.remaining < self.limit * _LOW_SHARE

    @property
    def spent_until(self) -> float:
        """Until when asking may be in vain, in seconds since 1970. Nothing says when within the window it ends."""
        return self.seen_at if self.remaining else self.seen_at + self.window


def read_rate_limit(limit: str | None, remaining: str | None) -> RateLimit | None:
    """The fields `RateLimit-Limit` and `RateLimit-Remaining`, as Docker Hub writes them: `100;w=21600`.

    Nobody has standardised them so, and others mean other things by the same names. Whatever is not a number in a
    window of seconds is left alone: no pull may fail for it, and nobody is to be told nonsense.
    """
    allowed, left = _quota(limit), _quota(remaining)
    if allowed is None or left is None:
        return None
    window = left[1] or allowed[1]
    return RateLimit(allowed[0], left[0], window) if window else None


def seconds_to_wait(retry_after: str | None, now: float) -> float | None:
    """What a Retry-After field asks for (RFC 9110 section 10.2.3): seconds or a date. None where there is neither."""
    field = (retry_after or "").strip()
    if _NUMBER.fullmatch(field):
        return float(field)
    at = parse_http_date(field)
    return None if at is None else max(0.0, at - now)


def _quota(field: str | None) -> tuple[int, int | None] | None:
    """The number and its window. Of several policies in one field the first counts."""
    number, *parameters = [part.strip() for part in (field or "").partition(",")[0].split(";")]
    if not _NUMBER.fullmatch(number):
        return None
    windows = [text[2:] for text in parameters if text.startswith("w=") and _NUMBER.fullmatch(text[2:])]
    return int(number), int(windows[0]) if windows else None
