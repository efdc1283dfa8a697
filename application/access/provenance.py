"""Provenance: for which upstream's clients stored content is served without fetching it from that upstream."""

from application.access.access_request import PullAccess
from application.concurrency import BackgroundTasks, LruCache
from application.ports.index import KnowledgeIndex
from domain.access import ANONYMOUS
from domain.access_rules import AccessRules
from domain.digest import Digest
from domain.records import ANONYMOUS_CLASS, class_of
from domain.upstreams import Upstream

_REMEMBERED = 32768


class Provenance:
    """Content is stored once, by its digest, whichever upstream sent it. If another upstream answers 200 to a HEAD for
    the same digest, this does not prove that it has the content: an upstream that answers so for every digest would
    give everyone access to private content of the first upstream. So each upstream must send the content itself once,
    unless the content is public (`is_public`).
    """

    def __init__(self, index: KnowledgeIndex, rules: AccessRules, background: BackgroundTasks) -> None:
        self._index = index
        self._rules = rules
        self._background = background
        self._known: LruCache[tuple[Upstream, Digest], bool] = LruCache(_REMEMBERED)
        """Content for which `serves` is True. It never becomes False again."""

    def is_public(self, access: PullAccess) -> bool:
        """Whether what the upstream sends to this caller is public: the upstream sends it without a login, and the
        access rules of this mirror let callers without an account pull it.
        """
        return class_of(access.caller) == ANONYMOUS_CLASS and self._rules.may_pull(ANONYMOUS, access.source)

    async def serves(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether stored content with this digest is served to those who may read it at this upstream."""
        if self._known.get((upstream, digest)):
            return True
        is_served = await self._index.was_sent(upstream, digest)
        if is_served:
            self._known.put((upstream, digest), True)
        return is_served

    def sent(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        """The upstream has sent the whole content, and its digest was right. `is_public`: all of it is public."""
        self._known.put((upstream, digest), True)
        self._background.start(self._index.keep_sent(upstream, digest, is_public=is_public))
