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


def is_mirror_caller(caller: CallerId) -> bool:
    return caller.startswith(_MIRROR)


CallerClass = NewType("CallerClass", str)
"""Callers who are one and the same to an upstream while it cannot be asked: all who show no login; all who use one
login of the mirror (another login is another class); all who bring a login or a token of their own.
"""

ANONYMOUS_CLASS = CallerClass(ANONYMOUS_CALLER)
PERSONAL_CLASS = CallerClass("personal")


def class_of(caller: CallerId) -> CallerClass:
    """The class of a caller."""
    return CallerClass(caller) if caller == ANONYMOUS_CALLER or is_mirror_caller(caller) else PERSONAL_CLASS


def classes_for(caller: CallerId) -> frozenset[CallerClass]:
    """The classes that the upstream must have given something to before this caller may get it without another
    question: the caller's own, and the anonymous one, since what everybody may read is no secret from anybody.
    """
    return frozenset({class_of(caller), ANONYMOUS_CLASS})


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
    bytes may be of another type elsewhere (CVE-2021-41190). `size` in bytes, None where nobody told. `given_to`: the
    classes of callers to whom the upstream said so. A right to the repository opens nothing that it gave to others.
    """

    item: Item
    media_type: str
    size: int | None
    given_to: frozenset[CallerClass] = frozenset()


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
class CachedTag:
    """What a tag meant when the upstream was last asked. `checked_at` in seconds since 1970. `given_to`: the class of
    callers to whom the upstream said so. It may tell another class something else, so each class has its own mark.
    """

    key: TagKey
    digest: Digest
    media_type: str
    checked_at: float
    given_to: CallerClass
