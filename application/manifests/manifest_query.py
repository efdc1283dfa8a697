"""The query for a manifest, and its answer."""

from dataclasses import dataclass, replace
from typing import Self

from domain.digest import Digest
from domain.manifests import variant_of
from domain.names import Reference, RepositoryName, Tag
from domain.records import TagKey
from domain.upstream_table import NO_HINT, RegistryHint
from domain.upstreams import Source


@dataclass(frozen=True)
class ManifestQuery:
    """The requested manifest. `accept`: the values of the Accept headers, unsplit; `known`: the digests that the client
    has (If-None-Match); `asked_at`: when the request for a tag arrived, in seconds since 1970.
    """

    name: RepositoryName
    reference: Reference
    accept: tuple[str, ...] = ()
    head: bool = False
    known: frozenset[str] = frozenset()
    hint: RegistryHint = NO_HINT
    asked_at: float = float("inf")

    def is_content_with(self, digest: Digest) -> bool:
        """Whether an answer with this digest needs no body."""
        return self.head or str(digest) in self.known

    def tag_key(self, source: Source) -> TagKey | None:
        """The key of the cached tag that answers this query. None for a digest, and for media types whose answer cannot
        be predicted.
        """
        tag, variant = self.reference.target, variant_of(self.accept)
        return TagKey(source, tag, variant) if isinstance(tag, Tag) and variant is not None else None


@dataclass(frozen=True)
class ManifestAnswer:
    """A manifest, or only its metadata: `content` may be None for HEAD and for a manifest that the client has.

    `good_until`: until then (seconds since 1970) the same caller may get the same answer without another check.
    `is_hit`: the bytes were cached.
    """

    media_type: str
    digest: Digest
    size: int
    content: bytes | None
    warnings: tuple[str, ...] = ()
    good_until: float = 0.0
    is_hit: bool = False

    def with_cached(self, content: bytes) -> Self:
        """The same answer with its cached content."""
        return replace(self, content=content, size=len(content), is_hit=True)
