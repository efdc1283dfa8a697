"""The port to what all workers are doing now, which the page shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.digest import Digest
from domain.names import RepositoryName
from domain.upstreams import Source, Upstream
from domain.value import Value


@dataclass(frozen=True)
class DownloadState:
    """A running download of a blob in one worker. `repositories`: those from which it was requested, because only
    viewers who may know of the blob there may know of the download; `has_more`: there are further ones. `started_at`:
    seconds since 1970; `present`: bytes of the blob that are stored; `total`: all its bytes, None if that is unknown;
    `speed`: bytes per second, None if that is not measured yet; `connections`: requests that fetch it now, 0 if another
    process does that; `readers`: requests of clients that read from it.
    """

    upstream: Upstream
    digest: Digest
    repositories: tuple[RepositoryName, ...]
    has_more: bool
    started_at: float
    present: int
    total: int | None
    speed: float | None
    connections: int
    readers: int

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(Source(self.upstream, repository) for repository in self.repositories)


@dataclass(frozen=True)
class UpstreamTrouble:
    """A reason why a worker sends an upstream fewer requests. `is_back_off`: the upstream wants that; otherwise a
    request to it has failed. `until`: the end, in seconds since 1970. Contains nothing about single callers.
    """

    upstream: Upstream
    is_back_off: bool
    message: str
    until: float


class Activity(Value, frozen=True):
    """What one worker is doing."""

    downloads: Sequence[DownloadState] = ()
    troubles: Sequence[UpstreamTrouble] = ()


class ActivityTable(Protocol):
    """The activity of each worker. It is limited in size: of very many downloads, it has some."""

    def report(self, activity: Activity) -> None:
        """Replace what this worker has reported. Called once a second, also if there is nothing to report."""

    def all(self) -> list[Activity]:
        """What each worker has reported in the last seconds. A worker that has stopped is omitted soon. What concerns
        upstreams that this mirror no longer has is omitted, too.
        """
