"""Administer: what operators change in the cache from the page. Each action leaves one audit event."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from application.page.viewer import Viewer
from application.ports.content import StorageFailed
from application.ports.index import Used
from application.ports.shared import SharedUnavailable
from application.ports.telemetry import EventSink
from application.upkeep.manage_cache import ImagePinned, ManageCache
from application.upkeep.manage_shared_content import ManageSharedContent
from application.upkeep.pinned_images import PinnedImages
from domain.digest import Digest
from domain.errors import ActionFailed
from domain.events import OperatorActed
from domain.names import Reference, Tag
from domain.pins import Pin
from domain.upstreams import Source
from domain.value import Value

T = TypeVar("T")


def image_name(source: Source, target: Tag | Digest | None) -> str:
    """The name of an image or a repository in audit events."""
    return f"{source.upstream.name}/{source.repository}{Reference(target).suffix if target else ''}"


class Preview(Value, frozen=True):
    """What a purge would remove. `here`: from the cache of this replica; `shared`: from the shared store, with its
    bytes; None if there is no shared store, or if it does not answer because of `failure`.
    """

    here: Sequence[Used]
    shared: Mapping[Digest, int] | None = None
    failure: str = ""


class Administer:
    """The caller has checked that the viewer is an operator. Actions raise ActionFailed. An action that fails or is
    refused leaves an audit event, too.
    """

    def __init__(
        self, cache: ManageCache, shared: ManageSharedContent | None, pins: PinnedImages, events: EventSink
    ) -> None:
        """`shared`: what all replicas share; None if this replica shares nothing."""
        self._cache = cache
        self._shared = shared
        self._pins = pins
        self._events = events

    async def to_purge(self, source: Source, target: Tag | Digest | None) -> Preview:
        """What `purge` would remove. Leaves no audit event. Raises ImagePinned, StorageFailed."""
        here = await self._cache.to_purge(source, target)
        if self._shared is None:
            return Preview(here)
        try:
            return Preview(here, await self._shared.to_purge(source, target))
        except SharedUnavailable as error:
            return Preview(here, failure=str(error))

    async def to_prune(self, older_than: float) -> Preview:
        """What `prune` would remove, from this replica only. Leaves no audit event. Raises StorageFailed."""
        return Preview(await self._cache.to_prune(older_than))

    async def purge(
        self, viewer: Viewer, source: Source, target: Tag | Digest | None, *, everywhere: bool = False
    ) -> int:
        """Remove an image or a repository from the cache; returns the number of manifests and blobs. `everywhere`: also
        from the shared store, if there is one. Raises ImagePinned.
        """
        subject = image_name(source, target)
        shared = self._shared if everywhere else None

        async def act() -> tuple[int, str]:
            if shared:
                removed = await shared.purge(source, target)
                here, there = len(removed.local), len(removed.shared)
                return len({*removed.local, *removed.shared}), f"{here} removed, {there} from the shared store"
            dropped = await self._cache.purge(source, target)
            return len(dropped), f"{len(dropped)} removed"

        return await self._audited(viewer, "purge", subject, act)

    async def prune(self, viewer: Viewer, older_than: float) -> int:
        """Remove the content that was not used for `older_than` seconds; returns the number of manifests and blobs."""

        async def act() -> tuple[int, str]:
            dropped = await self._cache.prune(older_than)
            return len(dropped), f"{len(dropped)} removed, {sum(one.size for one in dropped)} bytes"

        return await self._audited(viewer, "purge", f"unused for {older_than:.0f} s", act)

    async def pin(self, viewer: Viewer, source: Source, reference: Reference, platforms: Sequence[str] | None) -> None:
        """See PinnedImages.pin. The upkeep fetches the image."""

        async def act() -> tuple[None, str]:
            image = await self._pins.pin(source, reference, platforms)
            return None, f"pinned, {', '.join(image.pin.platforms) or 'all platforms'}"

        await self._audited(viewer, "pin", image_name(source, reference.target), act)

    async def unpin(self, viewer: Viewer, pin: Pin) -> None:
        """See PinnedImages.unpin. An image that is not pinned is no error."""
        source = self._pins.source_of(pin)
        subject = image_name(source, pin.reference.target) if source else f"{pin.upstream_url}/{pin}"

        async def act() -> tuple[None, str]:
            return None, "unpinned" if await self._pins.unpin(pin) else "was not pinned"

        await self._audited(viewer, "unpin", subject, act)

    def record(self, viewer: Viewer, action: str, subject: str, result: str) -> None:
        """Leave the audit event of an action."""
        self._events.emit(OperatorActed(viewer.account, viewer.caller.address, action, subject, result))

    async def _audited(
        self, viewer: Viewer, action: str, subject: str, act: Callable[[], Awaitable[tuple[T, str]]]
    ) -> T:
        try:
            found, result = await act()
        except (StorageFailed, SharedUnavailable) as error:
            self.record(viewer, action, subject, f"failed: {error}")
            raise ActionFailed(str(error)) from error
        except ImagePinned as error:
            self.record(viewer, action, subject, f"refused: {error}")
            raise
        self.record(viewer, action, subject, result)
        return found
