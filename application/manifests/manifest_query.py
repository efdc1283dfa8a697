"""The query for a manifest, and its answer."""

from dataclasses import dataclass

from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.upstreams import NO_HINT, RegistryHint


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
