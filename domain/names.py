"""Repository names, tags and references. Each value is checked when it is created."""

import re
from dataclasses import dataclass
from typing import Self

from domain.digest import Digest
from domain.errors import NameInvalid, TagInvalid
from domain.value import Value

# OCI distribution specification, section "Pulling manifests".
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# The reference library of the distribution project caps the path at this many characters.
_NAME_LIMIT = 255


@dataclass(frozen=True, order=True)
class RepositoryName:
    """A repository name of one or more segments.

    Raises NameInvalid for anything outside the grammar or longer than 255 characters.
    """

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > _NAME_LIMIT or not _NAME.fullmatch(self.text):
            raise NameInvalid("invalid repository name", detail={"name": self.text[:_NAME_LIMIT]})

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Tag:
    """A tag; raises TagInvalid outside the grammar."""

    text: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.text):
            raise TagInvalid("invalid tag", detail={"tag": self.text[:128]})

    def __str__(self) -> str:
        return self.text


class Reference(Value, frozen=True):
    """The reference of a manifest: a tag or a digest."""

    target: Tag | Digest

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises TagInvalid or DigestInvalid. A text with a colon is a digest, because a tag contains no colon."""
        return cls(Digest.parse(text) if ":" in text else Tag(text))

    @property
    def suffix(self) -> str:
        """The reference behind the name of its repository: `:tag` or `@digest`."""
        return f"{'@' if self.digest else ':'}{self.target}"

    @property
    def digest(self) -> Digest | None:
        return self.target if isinstance(self.target, Digest) else None

    def __str__(self) -> str:
        return str(self.target)
