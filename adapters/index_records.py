"""What the indexes in SQLite and in Redis have in common: their limits, and how they store and read records."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from domain.challenge import Challenge
from domain.digest import Digest
from domain.errors import DigestInvalid, NameInvalid, TagInvalid
from domain.names import Reference, RepositoryName, Tag
from domain.pins import Pin, PinnedImage
from domain.records import CachedTag, CallerClass, ContentLocation, Link, TagKey
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream

VARIANTS = 16
"""Variants that are kept of each tag and class of callers. There are about as many kinds of clients."""
LINKS = 200_000
"""Links for each upstream, one for each class of callers. One takes about 300 bytes."""
TAGS = 50_000
"""Cached tags for each upstream."""

Row = tuple[Any, ...]


def read_link(location: ContentLocation, rows: Sequence[Row]) -> Link:
    """The link of one location, from its rows (class, media type, size), the newest first."""
    _, media_type, size = rows[0]
    return Link(location, media_type, size, frozenset(CallerClass(caller_class) for caller_class, _, _ in rows))


def read_tags(upstream: Upstream, rows: Iterable[Row]) -> list[CachedTag]:
    """The cached tags in the rows (repository, tag, variant, class, digest, media type, time), without those that
    cannot be read.
    """
    cached_tags = []
    for repository, tag, variant, caller_class, digest, media_type, checked_at in rows:
        with suppress(NameInvalid, TagInvalid, DigestInvalid):
            key = TagKey(Source(upstream, RepositoryName(repository)), Tag(tag), variant)
            cached_tags.append(CachedTag(key, Digest.parse(digest), media_type, checked_at, CallerClass(caller_class)))
    return cached_tags


def print_upstream_auth(auth: UpstreamAuth) -> str:
    """The text that is stored; only ASCII, because a challenge may contain bytes that are not UTF-8."""
    return json.dumps([[one.scheme, one.parameters] for one in auth.challenges])


def read_upstream_auth(text: str | bytes) -> UpstreamAuth | None:
    """The authentication that was stored; None if the text is invalid."""
    try:
        read = [(scheme, [(name, value) for name, value in parameters]) for scheme, parameters in json.loads(text)]
    except (ValueError, TypeError):
        return None
    words = [word for scheme, parameters in read for word in (scheme, *(part for pair in parameters for part in pair))]
    if not all(isinstance(word, str) for word in words):
        return None
    return UpstreamAuth(tuple(Challenge(scheme, tuple(parameters)) for scheme, parameters in read))


def print_pinned_image(image: PinnedImage) -> str:
    """What is stored of the image beside its key and `pinned_at`, as JSON. The index in SQLite reads `tree` itself."""
    return json.dumps(
        {
            "platforms": image.pin.platforms,
            "digest": str(image.digest) if image.digest else None,
            "tree": {str(digest): size for digest, size in image.tree.items()},
            "checked_at": image.checked_at,
            "due_at": image.due_at,
            "problem": image.problem,
        }
    )


def read_pinned_images(rows: Iterable[Row]) -> list[PinnedImage]:
    """The pinned images in the rows (upstream, repository, reference, pinned_at, record), without those that cannot be
    read.
    """
    images = []
    for upstream, repository, reference, pinned_at, text in rows:
        # KeyError and the others: a later version may have written the record.
        with suppress(NameInvalid, TagInvalid, DigestInvalid, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(text)
            pin = Pin(upstream, RepositoryName(repository), Reference.parse(reference), tuple(record["platforms"]))
            images.append(
                PinnedImage(
                    pin,
                    pinned_at,
                    Digest.parse(record["digest"]) if record["digest"] else None,
                    {Digest.parse(digest): size for digest, size in record["tree"].items()},
                    record["checked_at"],
                    record["due_at"],
                    record["problem"],
                )
            )
    return images
