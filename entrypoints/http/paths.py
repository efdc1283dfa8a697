"""What a path under /v2/ names. Parsed from the right, because a name may have any number of segments."""

from dataclasses import dataclass
from urllib.parse import unquote

from domain.digest import Digest
from domain.errors import PageUnknown
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
    """Raises NameInvalid, TagInvalid, DigestInvalid, or PageUnknown for what is none of these.

    Escapes are undone once and then the whole grammar is matched, so nothing that is not in the grammar,
    `..` and `%2F` least of all, ever reaches an upstream or a disk.
    """
    name, kind, last = ([*unquote(raw, errors="replace").rsplit("/", 2), "", ""])[:3]
    match kind:
        case "manifests":
            return ManifestPath(RepositoryName(name), Reference.parse(last))
        case "blobs":
            return BlobPath(RepositoryName(name), Digest.parse(last))
        case "referrers":
            return ReferrersPath(RepositoryName(name), Digest.parse(last))
        case "tags" if last == "list":
            return TagsPath(RepositoryName(name))
    raise PageUnknown("no such page: see the OCI distribution specification for what is there")
