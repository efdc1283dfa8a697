"""Records of the cache: grants, links between repositories and content, and cached tags."""

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from domain.digest import Digest
from domain.names import Tag
from domain.upstreams import Source

CallerId = NewType("CallerId", str)
"""The caller that an upstream answered: anonymous, the mirror itself, or the fingerprint of a caller's credentials."""

ANONYMOUS_CALLER = CallerId("anonymous")
_MIRROR = "mirror "


def mirror_caller(fingerprint: str) -> CallerId:
    """The mirror with the login that has this fingerprint. With another login it is another caller."""
    return CallerId(_MIRROR + fingerprint)


def is_mirror_caller(caller: CallerId) -> bool:
    return caller.startswith(_MIRROR)


CallerClass = NewType("CallerClass", str)
"""A class of callers that are alike during an outage: anonymous callers; callers that use one login of the mirror (each
login is a class); callers with a login or token of their own.
"""

ANONYMOUS_CLASS = CallerClass(ANONYMOUS_CALLER)
PERSONAL_CLASS = CallerClass("personal")


def class_of(caller: CallerId) -> CallerClass:
    """The class of a caller."""
    return CallerClass(caller) if caller == ANONYMOUS_CALLER or is_mirror_caller(caller) else PERSONAL_CLASS


def classes_for(caller: CallerId) -> frozenset[CallerClass]:
    """The classes whose cached answers this caller may get without a request to the upstream: the caller's own class,
    and the anonymous class, because every caller may read public content.
    """
    return frozenset({class_of(caller), ANONYMOUS_CLASS})


class ContentKind(Enum):
    MANIFEST = "manifest"
    BLOB = "blob"


@dataclass(frozen=True)
class ContentLocation:
    """A manifest or blob in a repository of an upstream. Knowing the digest does not permit a caller to read it."""

    source: Source
    kind: ContentKind
    digest: Digest


@dataclass(frozen=True)
class Link:
    """The upstream has confirmed that the repository contains this content.

    The media type belongs to the link, not to the digest: the same bytes may have another media type in another
    repository (CVE-2021-41190). `size`: bytes, None if unknown. `caller_classes`: the classes of the callers to which
    the upstream gave the content. A permission to read the repository does not cover content that only other classes
    got.
    """

    location: ContentLocation
    media_type: str
    size: int | None
    caller_classes: frozenset[CallerClass] = frozenset()


@dataclass(frozen=True)
class Grant:
    """The upstream allowed this caller to read this repository. Times in seconds since 1970."""

    caller: CallerId
    source: Source
    given_at: float
    ends_at: float


@dataclass(frozen=True)
class TagKey:
    """A tag and the accepted media types (`variant`). The upstream's answer depends on both."""

    source: Source
    tag: Tag
    variant: str


@dataclass(frozen=True)
class CachedTag:
    """The manifest of a tag at the last answer of the upstream. `checked_at`: seconds since 1970. `caller_class`: the
    class of the caller. The upstream may answer other classes differently, so each class has its own record.
    """

    key: TagKey
    digest: Digest
    media_type: str
    checked_at: float
    caller_class: CallerClass
