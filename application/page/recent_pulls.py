"""ListRecentPulls: the newest pulls that a person who looks at the page may know of."""

from collections.abc import Collection

from application.page.viewer import Viewer
from application.page.visible import Visibility
from application.ports.pull_log import PullLog, RecentPull
from domain.access import ANONYMOUS
from domain.upstreams import Upstream
from domain.value import Value

_SHOWN = 50


class ShownPull(Value, frozen=True):
    """A pull as the viewer may see it: only operators see its account and its address. `is_own`: the account of the
    viewer has made it.
    """

    recent: RecentPull
    is_own: bool


class ListRecentPulls:
    """Shows the pulls of content that the viewer could pull too. It shows who has pulled only to operators."""

    def __init__(self, pulls: PullLog, visibility: Visibility) -> None:
        self._pulls = pulls
        self._visibility = visibility

    async def __call__(self, viewer: Viewer, upstreams: Collection[Upstream]) -> list[ShownPull]:
        """At most 50 pulls from these upstreams, the newest first."""
        shown: list[ShownPull] = []
        sight = self._visibility.of(viewer)
        for recent in self._pulls.newest():
            source = recent.pull.source
            if source.upstream in upstreams and recent.pull.caller_class in await sight.classes(source):
                is_own = viewer.account != ANONYMOUS and recent.account == viewer.account
                seen = recent if viewer.is_operator else recent._replace(account=None, address="")
                shown.append(ShownPull(seen, is_own))
                if len(shown) == _SHOWN:
                    break
        return shown
