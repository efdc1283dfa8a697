"""ListDownloads: the running downloads that a person who looks at the page may know of."""

from collections.abc import Collection

from application.page.viewer import Viewer
from application.page.visible import Sight, Visibility
from application.ports.activity import ActivityTable, DownloadState
from domain.digest import Digest
from domain.records import ContentKind
from domain.upstreams import Source, Upstream
from domain.value import Value

_SHOWN = 50


class ShownDownload(Value, frozen=True):
    """A download as one viewer may see it. `source`: a repository in which the viewer may know of the blob; `present`,
    `total`: bytes, and `total` is None if it is unknown; `speed`: bytes per second, None if it is not measured yet;
    `readers`: None if some may read from a repository that the viewer may not know of.
    """

    source: Source
    digest: Digest
    present: int
    total: int | None
    speed: float | None
    connections: int
    readers: int | None


class ShownDownloads(Value, frozen=True):
    """`running`: the number of all downloads, also of those that the viewer may not see."""

    shown: list[ShownDownload]
    running: int


class ListDownloads:
    """Shows the downloads that the viewer could join: the viewer may read a repository from which the blob is wanted,
    and the upstream has confirmed to a caller of the viewer's class that the repository contains it.
    """

    def __init__(self, table: ActivityTable, visibility: Visibility) -> None:
        self._table = table
        self._visibility = visibility

    async def __call__(self, viewer: Viewer, upstreams: Collection[Upstream]) -> ShownDownloads:
        """At most 50 downloads from these upstreams, the oldest first."""
        sight, shown = self._visibility.of(viewer), list[ShownDownload]()
        downloads = self._by_blob()
        for states in downloads:
            if len(shown) < _SHOWN and states[0].upstream in upstreams and (one := await _shown(sight, states)):
                shown.append(one)
        return ShownDownloads(shown, len(downloads))

    def _by_blob(self) -> list[list[DownloadState]]:
        """The states of each download, the oldest first: one worker fetches a blob, and others may follow it."""
        found: dict[tuple[Upstream, Digest], list[DownloadState]] = {}
        states = (state for activity in self._table.all() for state in activity.downloads)
        for state in sorted(states, key=lambda one: one.started_at):
            found.setdefault((state.upstream, state.digest), []).append(state)
        return list(found.values())


async def _shown(sight: Sight, states: list[DownloadState]) -> ShownDownload | None:
    """What the viewer sees of a download. None if the viewer may not know of it."""
    digest = states[0].digest
    sources = dict.fromkeys(source for state in states for source in state.sources)
    visible = [source for source in sources if await sight.link(source, ContentKind.BLOB, digest)]
    if not visible:
        return None
    sees_all = len(visible) == len(sources) and not any(state.has_more for state in states)
    speeds = [state.speed for state in states if state.speed is not None]
    return ShownDownload(
        visible[0],
        digest,
        max(state.present for state in states),
        next((state.total for state in states if state.total is not None), None),
        sum(speeds) if speeds else None,
        sum(state.connections for state in states),
        sum(state.readers for state in states) if sees_all else None,
    )
