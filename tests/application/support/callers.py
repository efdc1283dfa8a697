"""Callers of every kind that the trust table speaks of: the Authorization header that each of them sends."""

from domain.access import Account, Credentials, Scope, ScopeSet
from domain.names import RepositoryName
from domain.tokens import IssuedToken, TokenIssuer
from tests.application.support.service import ALICE, EVERYTHING, Service, basic
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import settings_of

_UPSTREAM = settings_of().table.upstreams[0]
UPSTREAM_TOKEN = "upstream-token-of-alice="
_ELSEWHERE = ScopeSet((Scope.pull(RepositoryName("another/app")),))


def header_of(caller: str, service: Service, name: str) -> str | None:
    """`name` is whose the tokens of ours are, "" where nobody has an account."""
    account = service.parts.policy().account(name)
    issuer = service.parts.issuer()
    past = TokenIssuer("docker-image-proxy", StoppedClock(service.clock.now() - 1000), service.parts.codec(), 300)
    headers = {
        "nothing": None,
        "own": _bearer(issuer.issue(account, EVERYTHING)),
        "own of another scope": _bearer(issuer.issue(account, _ELSEWHERE)),
        "own expired": _bearer(past.issue(account, EVERYTHING)),
        "foreign": f"Bearer {UPSTREAM_TOKEN}",
        "basic right": basic(ALICE),
        "basic wrong": basic(Credentials("alice", "wrong")),
        "unreadable": "Bearer one two",
    }
    return headers[caller] if caller in headers else _countersigned(caller, issuer, past, account)


def _countersigned(caller: str, issuer: TokenIssuer, past: TokenIssuer, account: Account) -> str:
    lasting = IssuedToken(UPSTREAM_TOKEN, 300, 1_800_000_000)
    gone = IssuedToken(UPSTREAM_TOKEN, 300, 1_800_000_000 - 1000)
    whole = issuer.countersign(account, EVERYTHING, _UPSTREAM, lasting)
    match caller:
        case "countersigned":
            return _bearer(whole)
        case "countersigned other scope":
            return _bearer(issuer.countersign(account, _ELSEWHERE, _UPSTREAM, lasting))
        case "countersigned expired":
            return _bearer(past.countersign(account, EVERYTHING, _UPSTREAM, gone))
        case "signed half alone":
            return f"Bearer {whole.text.partition('~')[0]}"
        case "another upstream half":
            # One that the upstream itself would take.
            return f"Bearer {whole.text.partition('~')[0]}~upstream-token-of-bob="
    raise AssertionError(caller)


def _bearer(token: IssuedToken) -> str:
    return f"Bearer {token.text}"
