"""Images as people type them: NAME[:TAG][@DIGEST]."""

from domain.digest import Digest
from domain.errors import ClientFault
from domain.names import Reference, RepositoryName, Tag


def parse_image(text: str) -> tuple[RepositoryName, Reference | None]:
    """The repository as clients of the mirror name it, and the reference, None where there is none.

    Raises ValueError. A host in front is refused: which registry it is, the settings say.
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    try:
        if at:
            return RepositoryName(name), Reference(Digest.parse(digest))
        return RepositoryName(name), Reference(Tag(tag)) if colon else None
    except ClientFault as error:
        first = name.partition("/")[0]
        hint = "; leave the registry's host out" if "." in first or ":" in first else ""
        raise ValueError(f"{text!r} is no image: {error.message}{hint}") from error


def parse_image_or_latest(text: str) -> tuple[RepositoryName, Reference]:
    """As `parse_image`; where no reference is written, the one that clients mean then."""
    name, reference = parse_image(text)
    return name, reference or Reference(Tag("latest"))
