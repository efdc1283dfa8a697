"""PinnedImages: keeps the images that operators have pinned in the cache, and up to date."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from application.access.mirror_caller import MirrorCaller
from application.eviction import Eviction
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestQuery
from application.manifests.pull_manifest import PullManifest
from application.ports.index import KnowledgeIndex, UsageIndex
from application.ports.pins import PinIndex
from application.ports.telemetry import EventSink, begin_record
from application.upkeep.image_tree import image_tree
from application.upkeep.warm import ANY_MANIFEST, Image, NoSuchPlatform, Progress, WarmCache, check_platforms
from domain.cache_policy import CacheCapacity
from domain.digest import Digest
from domain.errors import ClientFault, ContentUnknown, CredentialsRejected, Denied, RegistryError, Unauthorized
from domain.events import PinCheckFailed, PinMoved, PinsMeasured, PinsTooLarge
from domain.manifests import UNKNOWN_PLATFORM, descriptors_of
from domain.names import Reference, Tag
from domain.pins import Pin, PinnedImage
from domain.ports import Clock
from domain.upstream_table import UpstreamTable
from domain.upstreams import Source
from domain.value import Value

_LEASE_SECONDS = 60.0
"""Another worker goes on with the checks this long after the one that made them has ended."""
_RENEW_SECONDS = 20.0
_RETRY_SECONDS = 300.0
"""The longest time to the next check after one that failed."""

_NOT_MIRRORED = "its registry is not mirrored here any more"
_GONE = "the upstream does not have it, or not all of it"
_UNAVAILABLE = "the upstream is unavailable"
_TOO_LARGE = "all pinned images together are larger than the cache; raise CACHE_SIZE or unpin some"
_BLOB_TOO_LARGE = "one of its layers is larger than the cache can store; raise CACHE_SIZE"
_INCOMPLETE = "not all of it could be stored yet"


class PinState(Value, frozen=True):
    """A pinned image as operators see it. `source`: None if its upstream is not in the settings any more; `held`: the
    bytes of its content that are stored; `is_complete`: all of its content is.
    """

    image: PinnedImage
    source: Source | None
    held: int
    is_complete: bool


class PinTotals(Value, frozen=True):
    """All pinned images together. `size`: the bytes of their content, stored or not, each once."""

    count: int
    size: int
    problems: int

    @classmethod
    def of(cls, images: Sequence[PinnedImage]) -> "PinTotals":
        return cls(len(images), _size(one.tree for one in images), sum(bool(one.problem) for one in images))


class PinnedImages:
    """An image is protected from the moment at which it is pinned, as far as it is cached. A check asks the upstream
    what its reference names now, and fetches what is missing. Until that has been fetched, the content of before stays
    protected too. A check that fails changes nothing but the problem that operators see.

    The upstream is asked as the mirror, see MirrorCaller: an image that it gives only to clients with a login of their
    own has the problem "unauthorized".
    """

    def __init__(
        self,
        pins: PinIndex,
        usage: UsageIndex,
        index: KnowledgeIndex,
        upstreams: UpstreamTable,
        caller: MirrorCaller,
        manifests: PullManifest,
        warm: WarmCache,
        manifest_cache: ManifestCache,
        eviction: Eviction,
        capacity: CacheCapacity,
        interval: float,
        clock: Clock,
        events: EventSink,
    ) -> None:
        """`interval`: the seconds between two checks of an image."""
        self._pins = pins
        self._usage = usage
        self._index = index
        self._upstreams = upstreams
        self._caller = caller
        self._manifests = manifests
        self._warm = warm
        self._manifest_cache = manifest_cache
        self._eviction = eviction
        self._capacity = capacity
        self._interval = interval
        self._clock = clock
        self._events = events
        self._is_too_large = False

    # --- for operators ---

    async def pin(
        self, source: Source, reference: Reference, platforms: Sequence[str] | None = None, *, delay: float = 0.0
    ) -> PinnedImage:
        """Pin the image, or change its platforms. `platforms`: each `os/architecture[/variant]`, none: all; None: those
        that are cached, or all if none is. `delay`: the seconds for which the workers leave the first check to the
        caller. Raises StorageFailed.
        """
        digest = reference.digest or await self._last_digest(source, reference)
        if platforms is None:
            platforms = await self._cached_platforms(digest) if digest else ()
        now = self._clock.now()
        pin = Pin(source.upstream.url, source.repository, reference, tuple(platforms))
        image = PinnedImage(pin, now, due_at=now + delay)
        if digest and (tree := await self._tree(digest, pin)):
            image = replace(image, digest=digest, tree=tree)
        if before := await self._find(pin):
            image = replace(
                image,
                digest=before.digest or image.digest,
                tree={**before.tree, **image.tree},
                checked_at=before.checked_at,
            )
        await self._pins.keep(image)
        return image

    async def unpin(self, pin: Pin) -> bool:
        """Whether the image was pinned. Its content stays until the space is needed. Raises StorageFailed."""
        return await self._pins.forget(pin)

    async def states(self) -> list[PinState]:
        """All pinned images, sorted. Raises StorageFailed."""
        states = []
        for image in await self._pins.all():
            stored = await self._usage.find(image.tree)
            held = sum(size for digest, size in image.tree.items() if digest in stored)
            is_complete = image.digest is not None and stored.keys() == image.tree.keys()
            states.append(PinState(image, self.source_of(image.pin), held, is_complete))
        return states

    async def totals(self) -> PinTotals:
        """Raises StorageFailed."""
        return PinTotals.of(await self._pins.all())

    # --- checks ---

    async def look_after(self) -> None:
        """Check the images that are due, unless another worker does so. Raises StorageFailed."""
        images = await self._pins.all()
        self._measure(images)
        for pin in [one.pin for one in images if self._is_due(one)]:
            if not await self._pins.lead(_LEASE_SECONDS):
                return
            # Another worker may have checked it, or an operator may have unpinned it, since the list was read.
            image = await self._find(pin)
            if image and self._is_due(image):
                await self._check(image)
                self._measure(await self._pins.all())

    async def _check(self, image: PinnedImage) -> None:
        renew_at = self._clock.now() + _RENEW_SECONDS
        try:
            async for _ in self.fetch(image):
                if self._clock.now() >= renew_at:
                    await self._pins.lead(_LEASE_SECONDS)
                    renew_at = self._clock.now() + _RENEW_SECONDS
        except Exception as error:  # noqa: BLE001 - the other images are checked nevertheless
            await self._failed(image, f"{type(error).__name__}: {error}")

    async def fetch(self, image: PinnedImage) -> AsyncIterator[Progress]:
        """Check one image, and store the result, which `states` shows. Yields the progress if something must be
        fetched. Raises StorageFailed if the other pins cannot be read.
        """
        source = self.source_of(image.pin)
        if source is None:
            await self._failed(image, _NOT_MIRRORED)  # nobody is asked, and a reload may add the registry
            return
        try:
            async for progress in self._fetch(image, source):
                yield progress
        except (Unauthorized, CredentialsRejected, Denied) as error:
            await self._failed(image, f"unauthorized: {error.message}", is_definite=True)
        except ContentUnknown:
            await self._failed(image, _GONE, is_definite=True)
        except (RegistryError, NoSuchPlatform) as error:
            message = error.message if isinstance(error, RegistryError) else str(error)
            await self._failed(image, message, is_definite=isinstance(error, ClientFault | NoSuchPlatform))

    async def _fetch(self, image: PinnedImage, source: Source) -> AsyncIterator[Progress]:
        pin = image.pin
        name, hint = self._upstreams.request_for(source)
        caller = await self._caller(name, hint)
        record = begin_record()
        answer = await self._manifests(caller, ManifestQuery(name, pin.reference, ANY_MANIFEST, hint=hint))
        if record.result == "stale":
            await self._failed(image, _UNAVAILABLE)
            return
        check_platforms(descriptors_of(answer.content or b""), pin.platforms)
        before = await self._content_before(image, answer.digest)
        tree = await self._protect(image, before, answer.digest, answer.size)
        if await self._missing(tree):
            wanted = Image(name, Reference(answer.digest), pin.platforms, hint)
            async with aclosing(self._warm(caller, wanted)) as warming:
                first = await anext(warming)  # all manifests are cached now, and no layer is fetched yet
                tree = await self._protect(image, before, answer.digest, answer.size)
                if problem := await self._too_large(image, tree):
                    await self._failed(image, problem)  # one HEAD: what is too large is not fetched
                    return
                yield first
                async for progress in warming:
                    yield progress
        if not await self._missing(tree):
            await self._fetched(image, answer.digest, tree)
        elif answer.digest != image.digest and await self._too_large(image, {**before, **tree}):
            await self._fetched(image, answer.digest, tree, _INCOMPLETE)  # the old content makes space for the new
        else:
            # Each attempt fetches what is missing, and drops it again without space: so only one follows soon.
            await self._failed(image, _INCOMPLETE, is_definite=image.problem == _INCOMPLETE)

    async def _protect(
        self, image: PinnedImage, before: Mapping[Digest, int], digest: Digest, size: int
    ) -> Mapping[Digest, int]:
        """The content of the image with this manifest, as far as its manifests are cached. From now on it is protected,
        and what was protected before as well. `size`: of the manifest.
        """
        tree = await self._tree(digest, image.pin) or {digest: size}
        await self._pins.update(replace(image, tree={**before, **tree}))
        return tree

    async def _content_before(self, image: PinnedImage, digest: Digest) -> Mapping[Digest, int]:
        """What stays protected until the image with this manifest is fetched. It is read from the manifest: the stored
        tree may contain other images that the tag named in between and that were never fetched whole.
        """
        if image.digest is None:
            return {}
        if image.digest == digest:
            return image.tree
        return await self._tree(image.digest, image.pin) or image.tree

    async def _missing(self, tree: Mapping[Digest, int]) -> bool:
        for digest in tree:
            if not await self._eviction.holds(digest):
                return True
        return False

    async def _too_large(self, image: PinnedImage, tree: Mapping[Digest, int]) -> str:
        """The problem if the cache cannot store this content of the image and all other pinned images; "" if it can."""
        for digest, size in tree.items():
            if not self._eviction.can_store(size) and not await self._eviction.holds(digest):
                return _BLOB_TOO_LARGE
        others = [one.tree for one in await self._pins.all() if one.pin.key != image.pin.key]
        return "" if _size([tree, *others]) <= self._capacity.max_bytes else _TOO_LARGE

    async def _fetched(self, image: PinnedImage, digest: Digest, tree: Mapping[Digest, int], problem: str = "") -> None:
        """The upstream has sent all content. From now on, only this content is protected."""
        now = self._clock.now()
        # The content of before has taken the space, which is free from now on.
        due_at = now + (self._retry if problem else self._interval)
        if image.digest not in {None, digest}:
            self._events.emit(PinMoved(image.pin.upstream_url, str(image.pin), str(digest)))
        self._report(image, problem)
        await self._pins.update(
            replace(image, digest=digest, tree=dict(tree), checked_at=now, due_at=due_at, problem=problem)
        )

    async def _failed(self, image: PinnedImage, problem: str, *, is_definite: bool = False) -> None:
        """The check has failed. `is_definite`: another one a few minutes later would fail too."""
        self._report(image, problem)
        due_at = self._clock.now() + (self._interval if is_definite else self._retry)
        # What the check has protected since stays protected.
        known = await self._find(image.pin) or image
        await self._pins.update(replace(image, tree=known.tree, due_at=due_at, problem=problem))

    def _report(self, image: PinnedImage, problem: str) -> None:
        """Log a problem once."""
        if problem and problem != image.problem:
            self._events.emit(PinCheckFailed(image.pin.upstream_url, str(image.pin), problem))

    def _measure(self, images: Sequence[PinnedImage]) -> None:
        totals, limit = PinTotals.of(images), self._capacity.max_bytes
        self._events.emit(PinsMeasured(totals.size, totals.problems))
        if totals.size > limit and not self._is_too_large:
            self._events.emit(PinsTooLarge(totals.size, limit))
        self._is_too_large = totals.size > limit

    def _is_due(self, image: PinnedImage) -> bool:
        return image.due_at <= self._clock.now()

    @property
    def _retry(self) -> float:
        return min(self._interval, _RETRY_SECONDS)

    # --- what is known ---

    def source_of(self, pin: Pin) -> Source | None:
        """None if the upstream is not in the settings any more."""
        upstream = next((one for one in self._upstreams.upstreams if one.url == pin.upstream_url), None)
        return Source(upstream, pin.repository) if upstream else None

    async def _find(self, pin: Pin) -> PinnedImage | None:
        return next((one for one in await self._pins.all() if one.pin.key == pin.key), None)

    async def _tree(self, digest: Digest, pin: Pin) -> dict[Digest, int]:
        return await image_tree(digest, self._manifest_cache.look, pin.platforms)

    async def _last_digest(self, source: Source, reference: Reference) -> Digest | None:
        """The manifest that the upstream last gave for the tag, to any caller."""
        tag = reference.target
        if not isinstance(tag, Tag):
            return tag
        cached_tags = await self._index.find_tags(source, tag)
        return max(cached_tags, key=lambda one: one.checked_at).digest if cached_tags else None

    async def _cached_platforms(self, digest: Digest) -> tuple[str, ...]:
        """The platforms of the index whose images are cached. Empty if all of them are, or none is."""
        content = await self._manifest_cache.look(digest)
        offered, cached = set(), set()
        for one in descriptors_of(content or b""):
            if one.platform and one.platform != UNKNOWN_PLATFORM:
                offered.add(one.platform)
                cached |= {one.platform} if await self._eviction.holds(one.digest) else set()
        return () if cached == offered else tuple(sorted(cached))


def _size(trees: Iterable[Mapping[Digest, int]]) -> int:
    """The bytes of the content of all trees, each once."""
    sizes: dict[Digest, int] = {}
    for tree in trees:
        sizes.update(tree)
    return sum(sizes.values())
