"""Visibility: which repositories, tags and content a viewer of the page may know of.

A name, and whether something is cached, are content. So the page shows them by the rules that decide over content in
the registry API: the trust row of the upstream, the access rules, the viewer's grants, and the classes of callers to
which the upstream gave each tag and each piece of content (docs/explanation/trust.md). The page never asks an upstream
for a permission. So it shows what the API would serve if the upstream could not be asked: see Grants.standing_in.

An operator sees everything that any caller was given: see Visibility.classes_of_operator.
"""

import asyncio
from collections.abc import Mapping

from application.access.access_request import AccessCheck, AccessRequest, PullAccess, Purpose
from application.access.authorize import Authorize
from application.access.caller import CallerIdentities
from application.access.grants import Grants
from application.access.pull_rules import PullRules
from application.page.viewer import Viewer
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity, KnowledgeIndex
from application.ports.pins import PinIndex
from application.ports.upstream import UpstreamCredentials
from domain.digest import Digest
from domain.errors import RegistryError
from domain.names import Tag
from domain.records import (
    ANONYMOUS_CLASS,
    PERSONAL_CLASS,
    CachedTag,
    CallerClass,
    CallerId,
    ContentKind,
    ContentLocation,
    Link,
    class_of,
    classes_for,
)
from domain.upstreams import Source, Upstream
from domain.value import Value

_LONGEST_SECONDS = 3.0
"""How long a page waits to learn how an upstream authenticates, or whether the upstream accepts the viewer's login."""


class UpstreamView(Value, frozen=True):
    """What a viewer is to one upstream: the same as a caller of the registry API with the same login."""

    upstream: Upstream
    check: AccessCheck
    identity: CallerIdentity
    credentials: UpstreamCredentials
    is_mirrors: bool

    @property
    def possible_classes(self) -> frozenset[CallerClass]:
        """The classes whose content the viewer can get in some repository."""
        return classes_for(self.identity.caller)

    def access_to(self, source: Source) -> PullAccess:
        return PullAccess(self.identity, self.credentials, source, self.is_mirrors)


class Visibility:
    """The only place that decides what the page shows to a viewer."""

    def __init__(
        self,
        authorize: Authorize,
        identities: CallerIdentities,
        rules: PullRules,
        grants: Grants,
        index: KnowledgeIndex,
        pins: PinIndex,
        mirrors: Mapping[Upstream, CallerId],
    ) -> None:
        """`mirrors`: the identity of the mirror's own login at each upstream that it has one for."""
        self._authorize = authorize
        self._identities = identities
        self._rules = rules
        self._grants = grants
        self._index = index
        self._pins = pins
        self._mirrors = mirrors

    def of(self, viewer: Viewer) -> "Sight":
        """What this viewer sees, for the time of one request."""
        return Sight(self, viewer)

    def classes_of_operator(self, upstream: Upstream) -> frozenset[CallerClass]:
        """All classes of callers at this upstream: whatever one of them was given, an operator sees, whether or not the
        access rules or the upstream would still allow it. Content that only an earlier login of the mirror was given is
        not shown.
        """
        mirror = self._mirrors.get(upstream)
        return frozenset({ANONYMOUS_CLASS, PERSONAL_CLASS} | ({class_of(mirror)} if mirror else set()))

    async def pinned(self, source: Source) -> frozenset[Tag | Digest]:
        """What is pinned in this repository. Only operators may know, see Sight.pinned. If the pins cannot be read,
        nothing: the page shows everything else.
        """
        try:
            pins = [image.pin for image in await self._pins.all()]
        except StorageFailed:
            return frozenset()
        return frozenset(pin.reference.target for pin in pins if pin.is_in(source))

    async def view(self, viewer: Viewer, upstream: Upstream) -> UpstreamView | None:
        """What the viewer is to this upstream. None if the viewer gets nothing from it: it needs a login, refuses the
        viewer's login, or cannot be asked now.
        """
        request = AccessRequest.to_list_repositories(viewer.caller, upstream, Purpose.LISTING)
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                access = await self._authorize.access(request)
                identity = await self._identities.of(access)
        except (RegistryError, TimeoutError):
            return None
        return UpstreamView(upstream, access.check, identity, access.credentials, access.is_mirrors)

    async def classes(self, view: UpstreamView, source: Source) -> frozenset[CallerClass]:
        """The classes of callers whose tags and content in this repository the viewer may know of. Empty if the viewer
        may not know that the repository exists.
        """
        if not self._rules.shows(view.check, str(source.repository)):
            return frozenset()
        return await self._grants.standing_in(view.access_to(source))

    async def answers(self, source: Source, tag: Tag, classes: frozenset[CallerClass]) -> list[CachedTag]:
        """The answers of the upstream for this tag that callers of these classes were given, the newest first."""
        found = [one for one in await self._index.find_tags(source, tag) if one.caller_class in classes]
        return sorted(found, key=lambda one: -one.checked_at)

    async def link(
        self, source: Source, kind: ContentKind, digest: Digest, classes: frozenset[CallerClass]
    ) -> Link | None:
        """The link of content that callers of these classes were given in this repository."""
        link = await self._index.find_link(ContentLocation(source, kind, digest))
        return link if link and link.caller_classes & classes else None


class Sight:
    """What one viewer sees. Remembers its answers, so it is used for one request only."""

    def __init__(self, visibility: Visibility, viewer: Viewer) -> None:
        self._visibility = visibility
        self._viewer = viewer
        self._views: dict[Upstream, UpstreamView | None] = {}
        self._classes: dict[Source, frozenset[CallerClass]] = {}

    async def possible_classes(self, upstream: Upstream) -> frozenset[CallerClass]:
        """The classes whose content the viewer can get in some repository of the upstream; empty if in none."""
        if self._viewer.is_operator:
            return self._visibility.classes_of_operator(upstream)
        view = await self._view(upstream)
        return view.possible_classes if view else frozenset()

    async def _view(self, upstream: Upstream) -> UpstreamView | None:
        """See Visibility.view."""
        if upstream not in self._views:
            self._views[upstream] = await self._visibility.view(self._viewer, upstream)
        return self._views[upstream]

    async def classes(self, source: Source) -> frozenset[CallerClass]:
        """See Visibility.classes and Visibility.classes_of_operator."""
        if self._viewer.is_operator:
            return self._visibility.classes_of_operator(source.upstream)
        if source not in self._classes:
            view = await self._view(source.upstream)
            self._classes[source] = await self._visibility.classes(view, source) if view else frozenset()
        return self._classes[source]

    async def tag(self, source: Source, tag: Tag) -> CachedTag | None:
        """The newest answer of the upstream for the tag, if the viewer may know of it."""
        return next(iter(await self.answers(source, tag)), None)

    async def answers(self, source: Source, tag: Tag) -> list[CachedTag]:
        """All answers of the upstream for the tag that the viewer may know of, the newest first."""
        classes = await self.classes(source)
        return await self._visibility.answers(source, tag, classes) if classes else []

    async def pinned(self, source: Source) -> frozenset[Tag | Digest]:
        """The tags and digests of the repository that are pinned. A pin says that the image is cached, whoever may read
        it, so only operators may know of it.
        """
        return await self._visibility.pinned(source) if self._viewer.is_operator else frozenset()

    async def link(self, source: Source, kind: ContentKind, digest: Digest) -> Link | None:
        """The link of the content, if the viewer may know that the repository contains it."""
        classes = await self.classes(source)
        return await self._visibility.link(source, kind, digest, classes) if classes else None
