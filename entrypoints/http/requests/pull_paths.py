"""Parses paths under /v2/. They are parsed from the right, because a repository name has any number of segments."""

from urllib.parse import unquote

from domain.digest import Digest
from domain.errors import BlobUnknown, DigestInvalid, ManifestUnknown, PathUnknown, TagInvalid
from domain.names import Reference, RepositoryName
from domain.value import Value


class ManifestPath(Value, frozen=True):
    name: RepositoryName
    reference: Reference


class BlobPath(Value, frozen=True):
    name: RepositoryName
    digest: Digest


class ReferrersPath(Value, frozen=True):
    name: RepositoryName
    digest: Digest


class TagsPath(Value, frozen=True):
    name: RepositoryName


PullPath = ManifestPath | BlobPath | ReferrersPath | TagsPath


_UNKNOWN = {"manifests": ManifestUnknown, "blobs": BlobUnknown}
"""A registry cannot have content with an ill-formed tag or digest, because no client can push it. The OCI conformance
suite v1.1.1 expects 404.
"""


def parse_pull_path(raw: str) -> PullPath:
    """Raises NameInvalid for an ill-formed repository name; ManifestUnknown and BlobUnknown for an ill-formed tag or
    digest; DigestInvalid for an ill-formed digest of referrers, where a 404 would mean that the API is missing;
    PathUnknown for all other paths.

    Escapes are undone once and then the whole grammar is matched. Nothing else, such as `..` or `%2F`, ever reaches an
    upstream or a disk.
    """
    name, kind, last = ([*unquote(raw, errors="replace").rsplit("/", 2), "", ""])[:3]
    try:
        match kind:
            case "manifests":
                return ManifestPath(RepositoryName(name), Reference.parse(last))
            case "blobs":
                return BlobPath(RepositoryName(name), Digest.parse(last))
            case "referrers":
                return ReferrersPath(RepositoryName(name), Digest.parse(last))
            case "tags" if last == "list":
                return TagsPath(RepositoryName(name))
    except (TagInvalid, DigestInvalid) as error:
        if unknown := _UNKNOWN.get(kind):
            raise unknown(f"{kind.removesuffix('s')} unknown: {error.message}", detail=error.detail) from None
        raise
    raise PathUnknown("no such path: see the OCI distribution specification for the paths of a registry")
