"""The rules of the settings file: who may pull what, and how long a tag is believed."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from domain.access_rules import AccessRule, Effect
from domain.cache_policy import FreshnessRule
from domain.patterns import RepositoryPattern, TagPattern
from domain.upstreams import Upstream


def _repositories(given: object) -> tuple[RepositoryPattern, ...]:
    return tuple(RepositoryPattern(text) for text in _texts(given))


def _tags(given: object) -> tuple[TagPattern, ...]:
    return tuple(TagPattern(text) for text in _texts(given))


def _texts(given: object) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise ValueError("takes a list of texts")
    return tuple(given)


Repositories = Annotated[tuple[RepositoryPattern, ...], BeforeValidator(_repositories)]
Tags = Annotated[tuple[TagPattern, ...], BeforeValidator(_tags)]
_MODEL = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


class RuleSettings(BaseModel):
    """A rule of who may pull what; `allow` or `deny`, and not both."""

    model_config = _MODEL

    allow: Repositories = Field((), description="a list of patterns of repositories")
    deny: Repositories = Field((), description="a list of patterns of repositories")
    accounts: Annotated[tuple[str, ...], BeforeValidator(_texts)] = Field((), description="a list of accounts")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.allow) == bool(self.deny):
            raise ValueError("takes either allow or deny, each a list of patterns of repositories")
        self.rule  # noqa: B018 - raises where it is about nobody
        return self

    def check_registries(self, upstreams: Sequence[Upstream]) -> None:
        """Raises ValueError for a pattern that is about nothing here, or about something else than it seems: what was
        to be denied would not be.
        """
        for pattern in self.repositories:
            if not any(map(pattern.is_for, upstreams)):
                raise ValueError(f"rules: got {pattern.text!r}, which is about no registry that is mirrored here")
            first, _, rest = pattern.text.partition("/")
            # Clients do call it so: RepositoryPattern takes a name without a dot for a repository's.
            named = next((one for one in upstreams if rest and not pattern.has_registry and first in one.names), None)
            if named:
                raise ValueError(
                    f"rules: got {pattern.text!r}, where {first!r} is a name of {named.url}; takes a name with a dot "
                    f"or a port, such as {named.origin.authority}/{rest}"
                )

    @property
    def repositories(self) -> tuple[RepositoryPattern, ...]:
        return self.allow or self.deny

    @property
    def rule(self) -> AccessRule:
        """The same as a value of the domain."""
        return AccessRule(Effect.ALLOW if self.allow else Effect.DENY, self.repositories, self.accounts)


class FreshnessSettings(BaseModel):
    """A rule of how long tags are believed."""

    model_config = _MODEL

    tags: Tags = Field(description="a list of patterns of tags")
    repositories: Repositories = Field((), description="a list of patterns of repositories")
    tag_ttl: float | None = Field(None, strict=True, ge=0, le=31_536_000, description="seconds from 0 to 31536000")
    stale_ttl: float | None = Field(None, strict=True, ge=0, le=31_536_000, description="seconds from 0 to 31536000")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        self.rule  # noqa: B018 - raises where it is about nothing
        return self

    @property
    def rule(self) -> FreshnessRule:
        """The same as a value of the domain."""
        return FreshnessRule(self.tags, self.repositories, self.tag_ttl, self.stale_ttl)
