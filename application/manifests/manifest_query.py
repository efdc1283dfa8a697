"""What is asked of manifests, and what is answered."""

from dataclasses import dataclass

from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.upstreams import NO_HINT, RegistryHint


@dataclass(frozen=True)
class ManifestQuery:
    """Which manifest: `accept` holds whole Accept lines, `known` what the client says it has (If-None-Match).
    `asked_at`: when the request for a tag came, in seconds since 1970.
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
    """A manifest or, for HEAD and for what the client has already, what is to be said of it.

    `good_until`: the same caller may be told the same, without another look, until then (seconds since 1970).
    `is_hit`: the bytes were here.
    """

    media_type: str
    digest: Digest
    size: int
    content: bytes | None
    warnings: tuple[str, ...] = ()
    good_until: float = 0.0
    is_hit: bool = False
