"""Issuer and verifier together, with the real codec or the fake one."""

from dataclasses import dataclass

import pytest

from adapters.tokens.jws import JwsTokenCodec
from domain.access import Account, Scope, ScopeSet
from domain.ports import TokenCodec
from domain.tokens import IssuedToken, TokenIssuer, TokenRejected, TokenVerifier
from domain.upstreams import Origin, Upstream
from tests.fakes.clock import StoppedClock
from tests.fakes.codec import PlainTokenCodec

NOW = 1_800_000_000
LIFETIME = 300
ALICE = Account("alice", "the stamp of alice")
KEY = b"a key of thirty-two bytes or more"
PULL = Scope.parse("repository:a/b:pull")
UPSTREAM = Upstream.at("https://upstream.test", Origin("https", "upstream.test", 443))
UPSTREAM_TEXT = "upstream.token-of~alice="
REAL, FAKE = JwsTokenCodec(KEY), PlainTokenCodec("ours")
BOTH = pytest.mark.parametrize("codec", [pytest.param(REAL, id="real"), pytest.param(FAKE, id="fake")])


@dataclass
class Service:
    """Issuer and verifier that share a codec and a clock."""

    codec: TokenCodec

    def __post_init__(self) -> None:
        self.clock = StoppedClock(NOW)
        self.issuer = TokenIssuer("mirror", self.clock, self.codec, LIFETIME)
        self.verifier = TokenVerifier("mirror", self.clock, self.codec)

    def own(self, scopes: ScopeSet) -> str:
        return self.issuer.issue(ALICE, scopes).text

    def countersigned(self, upstream: str = UPSTREAM_TEXT, lifetime: int = LIFETIME) -> str:
        return self.issuer.countersign(ALICE, ScopeSet((PULL,)), UPSTREAM, IssuedToken(upstream, lifetime, NOW)).text

    def refusal(self, text: str) -> set[str]:
        """How both checks refuse the text."""
        errors = set()
        for check in (self.verifier.verify_own, self.verifier.verify_countersigned):
            with pytest.raises(TokenRejected) as caught:
                check(text)
            errors.add(caught.value.error)
        return errors
