"""Parses paths under /v2/. They are parsed from the right, because a repository name has any number of segments."""

from dataclasses import dataclass
from urllib.parse import unquote

from domain.digest import Digest
from domain.errors import BlobUnknown, DigestInvalid, ManifestUnknown, PathUnknown, TagInvalid
from domain.names import Reference, RepositoryName


@dataclass(frozen=True)
class ManifestPath:
    name: RepositoryName
    reference: Reference


@dataclass(frozen=True)
class BlobPath:
    name: RepositoryName
    digest: Digest


@dataclass(frozen=True)
class ReferrersPath:
    name: RepositoryName
    digest: Digest


@dataclass(frozen=True)
class TagsPath:
    name: RepositoryName


PullPath = ManifestPath | BlobPath | ReferrersPath | TagsPath


def parse_pull_path(raw: str) -> PullPath:
    """Raises NameInvalid for an ill-formed repository name; ManifestUnknown and BlobUnknown for an ill-formed tag or
    digest (a registry cannot have what no client can push; the OCI conformance suite v1.1.1 expects 404); DigestInvalid
    for an ill-formed digest of referrers (where a 404 would mean that the API is missing); PathUnknown for all else.

    Escapes are undone once and then the whole grammar is matched, so nothing that is not in the grammar,
    `..` and `%2F` least of all, ever reaches an upstream or a disk.
    """
    name, kind, last = ([*unquote(raw, errors="replace").rsplit("/", 2), "", ""])[:3]
    match kind:
        case "manifests":
            return ManifestPath(RepositoryName(name), _reference(last))
        case "blobs":
            return BlobPath(RepositoryName(name), _blob_digest(last))
        case "referrers":
            return ReferrersPath(RepositoryName(name), Digest.parse(last))
        case "tags" if last == "list":
            return TagsPath(RepositoryName(name))
    raise PathUnknown("no such path: see the OCI distribution specification for the paths of a registry")


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except (TagInvalid, DigestInvalid) as error:
        raise ManifestUnknown(f"manifest unknown: {error.message}", detail=error.detail) from None


def _blob_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise BlobUnknown(f"blob unknown: {error.message}", detail=error.detail) from None
