"""What a cache remembers besides bytes: who was let in where, what is where, and what a tag meant when."""

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from domain.digest import Digest
from domain.names import Tag
from domain.upstreams import Source

CallerId = NewType("CallerId", str)
"""Whom an upstream's word was given to: nobody, this mirror, or the fingerprint of somebody's credentials."""

ANONYMOUS_CALLER = CallerId("anonymous")
_MIRROR = "mirror "


def mirror_caller(fingerprint: str) -> CallerId:
    """The mirror itself, with the login that has this fingerprint: with another one it is somebody else."""
    return CallerId(_MIRROR + fingerprint)


def is_mirror(caller: CallerId) -> bool:
    return caller.startswith(_MIRROR)


class ContentKind(Enum):
    MANIFEST = "manifest"
    BLOB = "blob"


@dataclass(frozen=True)
class Item:
    """One piece of content as one repository has it. To know its digest is no right to read it."""

    source: Source
    kind: ContentKind
    digest: Digest


@dataclass(frozen=True)
class Link:
    """The upstream said that the repository has this. A media type belongs here and not to the digest: the same
    bytes may be of another type elsewhere (CVE-2021-41190). `size` in bytes, None where nobody told.
    """

    item: Item
    media_type: str
    size: int | None


@dataclass(frozen=True)
class Grant:
    """The upstream let this caller read this repository. Times in seconds since 1970."""

    caller: CallerId
    source: Source
    given_at: float
    ends_at: float


@dataclass(frozen=True)
class TagKey:
    """A tag, asked for with these media types (`variant`): the answer hangs on both."""

    source: Source
    tag: Tag
    variant: str


@dataclass(frozen=True)
class TagMark:
    """What a tag meant when the upstream was last asked. `checked_at` in seconds since 1970."""

    key: TagKey
    digest: Digest
    media_type: str
    checked_at: float
