"""A service with access rules."""

from dependency_injector import providers

from domain.access_rules import AccessRule, AccessRules, Effect
from domain.patterns import RepositoryPattern
from tests.application.support.service import Service


def rule(effect: Effect, *patterns: str, to: tuple[str, ...] = ()) -> AccessRule:
    return AccessRule(effect, tuple(map(RepositoryPattern, patterns)), to)


# Nobody may pull public/app.
CLOSED = AccessRules((rule(Effect.DENY, "upstream.test/public/**"),))
# Only accounts may pull, and of those bob nothing private.
FOR_ACCOUNTS = AccessRules((rule(Effect.DENY, "private/**", to=("bob",)), rule(Effect.ALLOW, "**", to=("*",))))


def ruled(service: Service, rules: AccessRules = FOR_ACCOUNTS) -> Service:
    service.parts.access_rules.override(providers.Object(rules))
    return service
