"""The rules of the settings file: who may pull what, and how long a tag is used without asking the upstream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from domain.access_rules import AccessRule, Effect
from domain.cache_policy import FreshnessRule
from domain.patterns import RepositoryPattern, TagPattern
from domain.upstreams import Upstream
from entrypoints.settings.schema import Parser, Refusal, check_keys, keys_of, read, setting
from entrypoints.settings.values import number

K = TypeVar("K")
T = TypeVar("T")


def _listed(takes: str, parse: Callable[[str], T]) -> Parser[tuple[T, ...]]:
    def parse_list(given: object) -> tuple[T, ...]:
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise ValueError
        try:
            return tuple(map(parse, given))
        except ValueError as error:
            raise Refusal(str(error)) from error

    return Parser(takes, parse_list)


def _tables(takes: str, keys: type[K], rule: Callable[[K], T]) -> Parser[tuple[T, ...]]:
    """`rule` makes the domain's rule of the keys of one table."""

    def parse_table(position: int, table: dict[str, object]) -> T:
        try:
            check_keys(table, keys_of(keys))
            return rule(read(keys, table))
        except ValueError as error:
            raise Refusal(f"entry {position}: {error}") from error

    def parse_tables(given: object) -> tuple[T, ...]:
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise ValueError
        return tuple(parse_table(position, table) for position, table in enumerate(given, start=1))

    return Parser(takes, parse_tables)


REPOSITORIES = _listed("a list of patterns of repositories", RepositoryPattern)
TTL = number(float, 0, 31_536_000, "seconds")


@dataclass(frozen=True)
class RuleKeys:
    """The keys of a table of `rules`: either `allow` or `deny`."""

    allow: tuple[RepositoryPattern, ...] = setting((), REPOSITORIES, "The repositories that may be pulled.")
    deny: tuple[RepositoryPattern, ...] = setting((), REPOSITORIES, "The repositories that may not be pulled.")
    accounts: tuple[str, ...] = setting(
        (),
        _listed("a list of accounts", str),
        "The accounts to which the rule applies; `*` means every account.",
        default_text="all callers, with or without an account",
    )

    def rule(self) -> AccessRule:
        """Raises ValueError for a rule that can never apply."""
        if bool(self.allow) == bool(self.deny):
            raise ValueError(f"takes either allow or deny, each {REPOSITORIES.takes}")
        return AccessRule(Effect.ALLOW if self.allow else Effect.DENY, self.allow or self.deny, self.accounts)


@dataclass(frozen=True)
class FreshnessKeys:
    """The keys of a table of an upstream's `freshness`."""

    tags: tuple[TagPattern, ...] = setting(
        (),
        _listed("a list of patterns of tags", TagPattern),
        "The tags to which the rule applies.",
        default_text="required",
    )
    repositories: tuple[RepositoryPattern, ...] = setting(
        (), REPOSITORIES, "The repositories to which the rule applies.", default_text="every repository"
    )
    tag_ttl: float | None = setting(None, TTL, "`TAG_TTL` for these tags.", default_text="that of the upstream")
    stale_ttl: float | None = setting(
        None,
        TTL,
        "`STALE_TTL` for these tags; at most that of the upstream, because permissions to read are kept only as long.",
        default_text="that of the upstream",
    )

    def rule(self) -> FreshnessRule:
        """Raises ValueError for a rule that can never apply."""
        return FreshnessRule(self.tags, self.repositories, self.tag_ttl, self.stale_ttl)


RULES = _tables("tables, each under [[rules]]", RuleKeys, RuleKeys.rule)
FRESHNESS = _tables("tables, each under [[upstreams.freshness]]", FreshnessKeys, FreshnessKeys.rule)


def check_registries(rule: AccessRule, upstreams: Sequence[Upstream]) -> None:
    """Raises ValueError for a pattern that matches no upstream, or means another repository than its author thinks:
    the rule would not deny what it is meant to deny.
    """
    for pattern in rule.repositories:
        if not any(map(pattern.is_for, upstreams)):
            raise ValueError(f"rules: got {pattern.text!r}, which matches no registry that is mirrored here")
        first, _, rest = pattern.text.partition("/")
        # Clients write `corp/app` for an upstream named corp. RepositoryPattern reads `corp` as part of a repository,
        # because it has no dot.
        named = next((one for one in upstreams if rest and not pattern.has_registry and first in one.names), None)
        if named:
            raise ValueError(
                f"rules: got {pattern.text!r}, where {first!r} is a name of {named.url}; takes a name with a dot "
                f"or a port, such as {named.origin.authority}/{rest}"
            )
