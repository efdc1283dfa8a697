"""The port to the newest pulls of manifests, which the page shows."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from domain.records import CallerClass
from domain.upstreams import Source


@dataclass(frozen=True)
class ManifestPull:
    """A manifest that a caller got. `reference`: the tag or digest of the request; `caller_class`: the class of the
    caller, because only callers of certain classes may know of the pull; `is_hit`: the bytes were cached.
    """

    source: Source
    reference: str
    caller_class: CallerClass
    is_hit: bool


class RecentPull(NamedTuple):
    """A pull that has ended. `at`: seconds since 1970; `account`: the checked account of the caller, or None;
    `address`: the IP address of the client; `seconds`: the duration of the request; `size`: the bytes of the body.

    Only operators may see the account and the address.
    """

    at: float
    pull: ManifestPull
    account: str | None
    address: str
    seconds: float
    size: int


class PullLog(Protocol):
    """The newest pulls of all workers. It is limited in size, and empty after a restart."""

    def add(self, pull: ManifestPull, account: str | None, address: str, seconds: float, size: int) -> None:
        """A pull has ended just now. Never raises and never waits: it is called for each manifest. Other workers may
        see the pull some seconds later.
        """

    def newest(self) -> list[RecentPull]:
        """A few hundred pulls, the newest first. Those of upstreams that this mirror no longer has are omitted."""
