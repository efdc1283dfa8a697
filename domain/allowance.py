"""Rate limits that a registry states in its responses: the pull allowance and Retry-After."""

import re
from dataclasses import dataclass

from domain.http_fields import parse_http_date

_NUMBER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class RateLimit:
    """The rate limit in one response: `remaining` of `limit` manifests may be pulled per `window` of seconds."""

    limit: int
    remaining: int
    window: int

    def seen(self, at: float) -> "Allowance":
        """The rate limit with the time of the response, in seconds since 1970."""
        return Allowance(self.limit, self.remaining, self.window, at)


@dataclass(frozen=True)
class Allowance(RateLimit):
    """A rate limit with the time of its response, `seen_at`, in seconds since 1970."""

    seen_at: float

    @property
    def is_low(self) -> bool:
        """Whether less than a tenth is left."""
        return self.remaining < self.limit * 0.1

    @property
    def renewed_by(self) -> float:
        """The time by which all of it is available again if nothing more is pulled, in seconds since 1970."""
        return self.seen_at + self.window

    @property
    def spent_until(self) -> float:
        """The latest time at which a used-up allowance is renewed, in seconds since 1970."""
        return self.seen_at if self.remaining else self.renewed_by


def read_rate_limit(limit: str | None, remaining: str | None) -> RateLimit | None:
    """Parse the fields `RateLimit-Limit` and `RateLimit-Remaining` in Docker Hub's format, such as `100;w=21600`.

    The format is not standardised, and other registries use the names with other meanings. Returns None for every other
    format, so that a pull never fails because of it.
    """
    allowed, left = _quota(limit), _quota(remaining)
    if allowed is None or left is None:
        return None
    window = left[1] or allowed[1]
    return RateLimit(allowed[0], left[0], window) if window else None


def seconds_to_wait(retry_after: str | None, now: float) -> float | None:
    """The seconds of a Retry-After field, which has seconds or a date (RFC 9110 section 10.2.3); None if invalid."""
    field = (retry_after or "").strip()
    if _NUMBER.fullmatch(field):
        return float(field)
    at = parse_http_date(field)
    return None if at is None else max(0.0, at - now)


def _quota(field: str | None) -> tuple[int, int | None] | None:
    """The number and its window in seconds. If a field has several policies, the first counts."""
    number, *parameters = [part.strip() for part in (field or "").partition(",")[0].split(";")]
    if not _NUMBER.fullmatch(number):
        return None
    windows = [text[2:] for text in parameters if text.startswith("w=") and _NUMBER.fullmatch(text[2:])]
    return int(number), int(windows[0]) if windows else None
