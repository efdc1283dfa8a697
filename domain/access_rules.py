"""AccessRules: which repositories may be pulled through this mirror, and by whom."""

from dataclasses import dataclass
from enum import Enum

from domain.access import ANONYMOUS
from domain.patterns import RepositoryPattern
from domain.upstreams import Source
from domain.value import Value

ANY_ACCOUNT = "*"


class Effect(Enum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True)
class AccessRule:
    """Allows or denies these repositories to these accounts. An account is a name, or `*` for every account. Without
    accounts, the rule applies to all callers, also anonymous ones. Raises ValueError if the rule could never match.
    """

    effect: Effect
    repositories: tuple[RepositoryPattern, ...]
    accounts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.repositories:
            raise ValueError("a rule must name at least one repository; ** matches every repository")
        if ANONYMOUS in self.accounts:
            # The empty name means the anonymous caller: the rule would match callers that it is meant to exclude.
            raise ValueError("an account name in a rule is empty")

    def matches(self, account: str, source: Source) -> bool:
        is_named = account in self.accounts or (account != ANONYMOUS and ANY_ACCOUNT in self.accounts)
        return (is_named or not self.accounts) and any(pattern.matches(source) for pattern in self.repositories)


class AccessRules(Value, frozen=True):
    """The first matching rule decides, otherwise `default`.

    If `default` is None, it follows from the rules. If any rule allows something, everything else is denied; if all
    rules deny, everything else is allowed. With a fixed default of "allow", `allow` rules alone would have no effect.
    """

    rules: tuple[AccessRule, ...] = ()
    default: Effect | None = None

    @property
    def restrict(self) -> bool:
        """Whether the rules can deny any pull."""
        return bool(self.rules) or self.default is Effect.DENY

    def may_pull(self, account: str, source: Source) -> bool:
        """`account`: the name of an account whose login was checked, or ANONYMOUS."""
        decisive = self.deciding_rule(account, source)
        return (decisive.effect if decisive else self.default or self._opposite) is Effect.ALLOW

    def deciding_rule(self, account: str, source: Source) -> AccessRule | None:
        """The first matching rule; None if no rule matches. `account`: see `may_pull`."""
        return next((rule for rule in self.rules if rule.matches(account, source)), None)

    @property
    def _opposite(self) -> Effect:
        return Effect.DENY if any(rule.effect is Effect.ALLOW for rule in self.rules) else Effect.ALLOW
