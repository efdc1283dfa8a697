"""The names and formats of the objects in the shared store.

`content/sha256/ab/HEX` is the record of one digest: one line of JSON, then the content itself if it is small.
`parts/sha256/ab/HEX/UPSTREAM/LEASE/OFFSET` is one part of a large blob.
"""

import re
from typing import Any, TypeGuard

from application.ports.shared import SHARDS, SharedPart, SharedRecord
from domain.digest import ALGORITHMS, Digest
from domain.documents import parse_object, print_json
from domain.errors import DigestInvalid
from domain.part_layout import INLINE_BYTES, LARGEST_PART_BYTES
from domain.upstreams import Upstream

RECORDS = "content"
"""The folder of all records."""
PARTS = "parts"
"""The folder of all parts."""
_VERSION = 1
_LINE_BYTES = 16 * 1024 * 1024
"""The longest first line of a record. The record of a blob of 1 TiB has 65,536 parts, and its line about 15 MB."""
RECORD_BYTES = _LINE_BYTES + INLINE_BYTES
"""A larger object is not a record."""

_SENDERS = 1024
_LARGEST_CONTENT = 1 << 50
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST_PATH = r"(?P<algorithm>[a-z0-9]{1,16})/(?P<folder>[0-9a-f]{2})/(?P<encoded>[0-9a-f]{1,128})"
_RECORD_KEY = re.compile(rf"{RECORDS}/{_DIGEST_PATH}")
_PART_KEY = re.compile(
    rf"{PARTS}/{_DIGEST_PATH}/(?P<upstream>[0-9a-f]{{16}})/[A-Za-z0-9_-][A-Za-z0-9_.:-]{{0,127}}/(?P<offset>[0-9]{{1,16}})"
)


def record_key(digest: Digest) -> str:
    """The name of the record."""
    return f"{RECORDS}/{_path(digest)}"


def part_key(upstream: Upstream, digest: Digest, lease_id: str, offset: int) -> str:
    """The name of a part."""
    return f"{folder_of_parts(digest)}/{upstream.fingerprint}/{lease_id}/{offset}"


def folders(folder: str, shard: str) -> list[str]:
    """The folders in RECORDS or PARTS that have the objects of the shard, or of all digests without a shard."""
    if not shard:
        return [folder]
    others = (
        [f"{folder}/{algorithm}" for algorithm in ALGORITHMS if algorithm != "sha256"] if shard == SHARDS[0] else []
    )
    return [f"{folder}/sha256/{shard}", *others]


def folder_of_parts(digest: Digest) -> str:
    """The folder that has all parts of the digest."""
    return f"{PARTS}/{_path(digest)}"


def digest_of_record(key: str) -> Digest | None:
    """The digest whose record has this name; None if no record has it."""
    return _digest_of(_RECORD_KEY.fullmatch(key))


def digest_of_part(key: str) -> Digest | None:
    """The digest of the blob that has a part of this name; None if no part has it."""
    return _digest_of(_PART_KEY.fullmatch(key))


def upstream_of_part(key: str) -> str:
    """The fingerprint of the upstream that sent the part of this name; empty if no part has it."""
    matched = _PART_KEY.fullmatch(key)
    return matched["upstream"] if matched else ""


def is_possible_part(part: SharedPart) -> bool:
    """Whether a replica can have written this part. Records and the shared index are not trusted."""
    matched = _PART_KEY.fullmatch(part.key)
    return (
        matched is not None
        and int(matched["offset"]) == part.offset
        and 0 < part.size <= LARGEST_PART_BYTES
        and _SHA256.fullmatch(part.sha256) is not None
    )


def print_record(record: SharedRecord) -> bytes:
    """The record as the bytes of an object."""
    line = {
        "version": _VERSION,
        "size": record.size,
        "senders": sorted(record.senders),
        "is_public": record.is_public,
        "parts": None
        if record.content is not None
        else [[part.key, part.offset, part.size, part.sha256] for part in record.parts],
    }
    return print_json(line) + b"\n" + (record.content or b"")


def parse_record(digest: Digest, content: bytes) -> SharedRecord | None:
    """The record of the digest that an object contains; None if the object is not a record of this release.

    The caller must compare the content with the digest.
    """
    end = content.find(b"\n", 0, _LINE_BYTES)
    line: dict[str, Any] | None = parse_object(content[:end]) if end >= 0 else None
    if line is None or not _is_valid(line):
        return None
    record = SharedRecord(
        size=line["size"],
        senders=frozenset(line["senders"]),
        is_public=line["is_public"],
        content=content[end + 1 :] if line["parts"] is None else None,
        parts=_parts(line["parts"] or []),
    )
    is_whole = len(record.content) == record.size if record.content is not None else _has_all_parts(digest, record)
    return record if is_whole else None


def _is_valid(line: dict[str, Any]) -> bool:
    """Whether the members of the first line have the right types."""
    senders, parts = line.get("senders"), line.get("parts", ())
    return (
        line.get("version") == _VERSION
        and _is_number(line.get("size"))
        and isinstance(line.get("is_public"), bool)
        and isinstance(senders, list)
        and len(senders) <= _SENDERS
        and all(isinstance(each, str) and _FINGERPRINT.fullmatch(each) for each in senders)
        and (parts is None or (isinstance(parts, list) and all(map(_is_part, parts))))
    )


def _is_part(fields: object) -> bool:
    if not isinstance(fields, list):
        return False
    match fields:
        case [str(), offset, size, str()]:
            return _is_number(offset) and _is_number(size)
    return False


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_CONTENT


def _parts(fields: list[list[Any]]) -> tuple[SharedPart, ...]:
    return tuple(SharedPart(*each) for each in fields)


def _has_all_parts(digest: Digest, record: SharedRecord) -> bool:
    """Whether the parts are parts of this digest, and each begins where the one before ends."""
    offset = 0
    for part in record.parts:
        if part.offset != offset or not is_possible_part(part) or digest_of_part(part.key) != digest:
            return False
        offset = part.stop
    return offset == record.size


def _path(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"


def _digest_of(matched: re.Match[str] | None) -> Digest | None:
    if matched is None or not matched["encoded"].startswith(matched["folder"]):
        return None
    try:
        return Digest.parse(f"{matched['algorithm']}:{matched['encoded']}")
    except DigestInvalid:
        return None
