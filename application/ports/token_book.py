"""The port to whose the tokens are that an upstream gave through us."""

from dataclasses import dataclass
from typing import Protocol

from domain.records import CallerId


@dataclass(frozen=True)
class CallerIdentity:
    """Who calls, and until when what they showed is good, in seconds since 1970."""

    caller: CallerId
    ends_at: float


class TokenStore(Protocol):
    """Knows fingerprints of tokens; never a token."""

    async def find(self, fingerprint: str) -> CallerIdentity | None: ...

    async def keep(self, fingerprint: str, identity: CallerIdentity) -> None: ...
