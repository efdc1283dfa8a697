"""AccessRules: which repositories may be pulled through this mirror, and by whom."""

from dataclasses import dataclass
from enum import Enum

from domain.access import ANONYMOUS
from domain.patterns import RepositoryPattern
from domain.upstreams import Source

ANY_ACCOUNT = "*"


class Effect(Enum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True)
class AccessRule:
    """What holds for these repositories and these accounts: names, or `*` for whoever has one. Without accounts it
    holds for everybody, with an account or none. Raises ValueError where it could hold for nothing or nobody.
    """

    effect: Effect
    repositories: tuple[RepositoryPattern, ...]
    accounts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.repositories:
            raise ValueError("a rule must name at least one repository; ** matches every repository")
        if ANONYMOUS in self.accounts:
            # It is the name of who has no account: such a rule would let in whom it is meant to keep out.
            raise ValueError("an account name in a rule is empty")

    def matches(self, account: str, source: Source) -> bool:
        return self._is_about(account) and any(pattern.matches(source) for pattern in self.repositories)

    def _is_about(self, account: str) -> bool:
        if not self.accounts:
            return True
        return account != ANONYMOUS and (account in self.accounts or ANY_ACCOUNT in self.accounts)


@dataclass(frozen=True)
class AccessRules:
    """The first rule that matches decides, else `default`.

    Without a default that is given, it follows from the rules: who lists what is allowed means that nothing else is;
    who lists only what is denied means that everything else is allowed. So a list of nothing but `allow`, which with a
    fixed "allowed" would do nothing at all and look as if it did, closes what it does not name.
    """

    rules: tuple[AccessRule, ...] = ()
    default: Effect | None = None

    @property
    def restrict(self) -> bool:
        """Whether anybody could be kept from anything."""
        return bool(self.rules) or self.default is Effect.DENY

    def may_pull(self, account: str, source: Source) -> bool:
        """`account` is the name of one whose login was checked, else ANONYMOUS."""
        decisive = next((rule.effect for rule in self.rules if rule.matches(account, source)), None)
        return (decisive or self.default or self._opposite) is Effect.ALLOW

    @property
    def _opposite(self) -> Effect:
        return Effect.DENY if any(rule.effect is Effect.ALLOW for rule in self.rules) else Effect.ALLOW
