"""What happened, as values, for whoever keeps a log or counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StanceLearnt:
    """The upstream's way of authenticating became known or, with `is_change`, another than it was.

    `row` is the number of the trust row that now applies.
    """

    upstream: str
    row: int
    meaning: str
    is_change: bool


@dataclass(frozen=True)
class UpstreamSharesOurName:
    """The upstream's challenge names the same service as ours: its tokens cannot be told from ours."""

    upstream: str
    service: str


@dataclass(frozen=True)
class UpstreamFailed:
    """A request to the upstream failed; `reason` is free of credentials."""

    upstream: str
    reason: str


@dataclass(frozen=True)
class WrongContent:
    """The upstream sent bytes that are not what their digest says."""

    upstream: str
    repository: str
    digest: str


Event = StanceLearnt | UpstreamSharesOurName | UpstreamFailed | WrongContent
