"""Accounts, credentials and scopes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from domain.errors import NameInvalid, ScopeInvalid
from domain.names import RepositoryName
from domain.value import Value

ANONYMOUS = ""
"""The account name of the anonymous caller, and the `sub` claim of its tokens (distribution, spec/auth/jwt.md)."""

_SCOPE_TEXT = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3, scope-token
# The name may contain `host:port`, so it ends at the last colon.
_SCOPE = re.compile(
    r"(?P<type>[a-z0-9]+)(?:\((?P<class>[a-z0-9]+)\))?:(?P<name>.+):(?P<actions>(?:(?:[a-z]+|\*)(?:,(?:[a-z]+|\*))*)?)"
)
_HOST_WITH_PORT = re.compile(r"[A-Za-z0-9.-]+:[0-9]+")
_SCOPE_LIMIT = 1024
_SCOPES_LIMIT = 64


@dataclass(frozen=True)
class Credentials:
    """A user name and a password. The repr contains only the user name."""

    username: str
    password: str = field(repr=False)

    def joined(self) -> str:
        """User name and password as one text for hashing. The length prefix distinguishes "a:b" with "c" from "a" with
        "b:c": in a POST request, a user name may contain a colon.
        """
        return f"{len(self.username)}:{self.username}:{self.password}"


@dataclass(frozen=True)
class Account:
    """An account that may use this service. `stamp`: the state of the account (AccountDirectory.stamp) when its login
    was checked or its token was signed. Accounts with the same name are equal, even if their stamps differ.
    """

    name: str
    stamp: str = field(default="", compare=False, repr=False)


ANONYMOUS_ACCOUNT = Account(ANONYMOUS)
"""Stands for the anonymous caller, which has no account."""


class Scope(Value, frozen=True):
    """A resource and actions on it (distribution, spec/auth/scope.md).

    A scope without colons is opaque (public.ecr.aws uses `aws`). The mirror relays opaque scopes but never grants them.
    """

    resource_type: str
    name: str = ""
    actions: frozenset[str] = frozenset()
    resource_class: str = ""

    @classmethod
    def pull(cls, name: RepositoryName) -> Self:
        return cls("repository", str(name), frozenset({"pull"}))

    @classmethod
    def catalog(cls) -> Self:
        return cls("registry", "catalog", frozenset({"*"}))

    @classmethod
    def search(cls) -> Self:
        """The scope that docker requests for a search with a token."""
        return cls("registry", "catalog", frozenset({"search"}))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ScopeInvalid if the text is not a scope."""
        if len(text) > _SCOPE_LIMIT or not _SCOPE_TEXT.fullmatch(text):
            raise ScopeInvalid("malformed scope", detail={"scope": text[:_SCOPE_LIMIT]})
        if ":" not in text:
            return cls(text)
        matched = _SCOPE.fullmatch(text)
        if not matched:
            raise ScopeInvalid("malformed scope", detail={"scope": text})
        name, actions = matched["name"], filter(None, matched["actions"].split(","))
        if matched["type"] == "repository":
            host, slash, rest = name.partition("/")
            try:
                RepositoryName(rest if slash and _HOST_WITH_PORT.fullmatch(host) else name)
            except NameInvalid as error:
                raise ScopeInvalid("malformed scope", detail={"name": name}) from error
        return cls(matched["type"], name, frozenset(actions), matched["class"] or "")

    @property
    def is_opaque(self) -> bool:
        return not self.name

    @property
    def repository(self) -> RepositoryName | None:
        """The repository of the scope; None for plugins, for names with a host and for other resource types."""
        if self.is_opaque or self.resource_type != "repository" or self.resource_class or ":" in self.name:
            return None
        return RepositoryName(self.name)

    def covers(self, needed: "Scope") -> bool:
        """Whether this scope allows every action of `needed` on the same resource."""
        return (
            self.name == needed.name
            and self.resource_type == needed.resource_type
            and self.resource_class == needed.resource_class
            and ("*" in self.actions or needed.actions <= self.actions)
        )

    def __str__(self) -> str:
        if self.is_opaque:
            return self.resource_type
        kind = f"{self.resource_type}({self.resource_class})" if self.resource_class else self.resource_type
        return f"{kind}:{self.name}:{','.join(sorted(self.actions))}"


class ScopeSet(tuple[Scope, ...]):
    """Distinct scopes, in the order of the request."""

    __slots__ = ()

    @classmethod
    def of(cls, scopes: Iterable[Scope]) -> Self:
        return cls(dict.fromkeys(scopes))

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Parse repeated `scope` parameters. Each contains scopes separated by spaces. Raises ScopeInvalid."""
        words = [word for text in texts for word in text.split(" ") if word]
        if len(words) > _SCOPES_LIMIT:
            raise ScopeInvalid("too many scopes", detail={"limit": _SCOPES_LIMIT})
        return cls.of(Scope.parse(word) for word in words)

    def cover(self, needed: Scope) -> bool:
        return any(scope.covers(needed) for scope in self)

    def __str__(self) -> str:
        return " ".join(map(str, self))


NO_SCOPES = ScopeSet()
