"""Pinned images: images that operators keep in the cache, whatever else is evicted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.upstreams import Source


@dataclass(frozen=True)
class Pin:
    """The image that an operator has pinned. There is one pin for each upstream, repository and reference.

    `upstream_url`: the upstream may have been removed from the settings since. `platforms`: each
    `os/architecture[/variant]`; empty: all platforms of the image.
    """

    upstream_url: str
    repository: RepositoryName
    reference: Reference
    platforms: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.repository}{self.reference.suffix}"

    @property
    def key(self) -> tuple[str, str, str]:
        """The URL, the repository and the reference. Pins with the same key replace each other."""
        return self.upstream_url, str(self.repository), str(self.reference)

    def is_in(self, source: Source) -> bool:
        """Whether the image is in this repository."""
        return self.upstream_url == source.upstream.url and self.repository == source.repository


@dataclass(frozen=True)
class PinnedImage:
    """A pin, and what is known of its image. Times in seconds since 1970.

    `pinned_at`: with the key of the pin, it identifies this pin: an image that was unpinned and pinned again has
    another time. `digest`: the manifest that was last fetched with all of its content, or that was cached when the
    image was pinned; None if there is none. `tree`: the size in bytes of each manifest and blob that is not evicted.
    `checked_at`: when the upstream last answered; None if it has not. `due_at`: when to ask it again. `problem`: why
    the last check failed; "" if it did not.
    """

    pin: Pin
    pinned_at: float
    digest: Digest | None = None
    tree: Mapping[Digest, int] = field(default_factory=dict)
    checked_at: float | None = None
    due_at: float = 0.0
    problem: str = ""

    @property
    def size(self) -> int:
        """The bytes of its tree, stored or not."""
        return sum(self.tree.values())


def content_of(images: Iterable[PinnedImage]) -> frozenset[Digest]:
    """The content in the trees of the images."""
    return frozenset(digest for image in images for digest in image.tree)
