"""Callers: who it is that calls, as far as an upstream's word to one caller must not serve another."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from application.access.access_request import FOREVER, Right
from application.concurrency import LruCache
from application.ports.index import CallerIdentity, TokenStore
from application.ports.upstream import ForwardedCredentials, UpstreamCredentials
from domain.access import Credentials
from domain.authorization import Basic, Bearer, parse_authorization
from domain.ports import TokenCodec
from domain.records import ANONYMOUS_CALLER, CallerId
from domain.tokens import IssuedToken
from domain.upstreams import Source, Upstream

_REMEMBERED = 8192
_FINGERPRINT_BYTES = 20


@dataclass(frozen=True)
class Ask:
    """Somebody, with the right to be used upstream, about one repository there. `is_mirrors`: the right is the mirror's
    own, the same for all callers.
    """

    identity: CallerIdentity
    right: UpstreamCredentials
    source: Source
    is_mirrors: bool = False

    @property
    def caller(self) -> CallerId:
        return self.identity.caller


class CallerIdentities:
    """Tells callers apart by a keyed fingerprint of their login, or of their token where no login was seen here.

    So a user who fetches a token for each pull stays one caller, and nothing that is kept opens a door. `key` is
    this service's secret; `mirrors` is the mirror itself with its own login, by upstream.
    """

    def __init__(self, store: TokenStore, codec: TokenCodec, key: bytes, mirrors: Mapping[Upstream, CallerId]) -> None:
        self._store = store
        self._codec = codec
        self._key = key
        self._mirrors = mirrors
        self._known: LruCache[str, CallerIdentity] = LruCache(_REMEMBERED)

    async def ask(self, right: Right, source: Source) -> Ask:
        """The ask behind a granted wish."""
        identity = await self._identify(right, source.upstream)
        if right.ends_at < identity.ends_at:
            identity = replace(identity, ends_at=right.ends_at)
        return Ask(identity, right.upstream, source, right.is_mirrors)

    async def remember(self, login: Credentials | str | None, token: IssuedToken) -> None:
        """The upstream gave this token for these credentials, for this refresh token, or to nobody (None).

        Returns when every worker knows it: the client comes back at once, to whichever it likes.
        """
        identity = CallerIdentity(self.caller_of(login), token.issued_at + token.expires_in)
        fingerprint = self._fingerprint(token.text)
        known = self._known.get(fingerprint) or await self._store.find(fingerprint)
        if known and known.caller != identity.caller:
            # The upstream gives the same token to several: it stands for none of them, but for itself.
            identity = replace(identity, caller=self.caller_of(token.text))
        self._known.put(fingerprint, identity)
        await self._store.keep(fingerprint, identity)

    async def _identify(self, right: Right, upstream: Upstream) -> CallerIdentity:
        asks = right.upstream
        if not isinstance(asks, ForwardedCredentials):
            is_ours = right.is_mirrors and asks.credentials is not None
            return CallerIdentity(self._mirrors[upstream] if is_ours else self.caller_of(asks.credentials), FOREVER)
        match parse_authorization(asks.raw):
            case None:
                return CallerIdentity(ANONYMOUS_CALLER, FOREVER)
            case Bearer(token):
                return await self._of_token(token)
            case Basic(credentials):
                return CallerIdentity(self.caller_of(credentials), FOREVER)
            case unreadable:
                return CallerIdentity(self.caller_of(unreadable.raw), FOREVER)

    async def _of_token(self, token: str) -> CallerIdentity:
        fingerprint = self._fingerprint(token)
        known = self._known.get(fingerprint)
        if known is None:
            known = await self._store.find(fingerprint) or self._stranger(token)
            self._known.put(fingerprint, known)
        return known

    def _stranger(self, token: str) -> CallerIdentity:
        """A token that did not come through us. What it says of its end is unverified, and can only shorten."""
        claimed = self._codec.peek(token)
        try:
            ends_at = float(str(claimed.claims.get("exp"))) if claimed else FOREVER
        except (ValueError, OverflowError):
            ends_at = FOREVER
        ends_at = FOREVER if math.isnan(ends_at) else ends_at
        return CallerIdentity(self.caller_of(token), ends_at)

    def caller_of(self, login: Credentials | str | None) -> CallerId:
        """Whom these credentials are of, this token where no login was seen, or nobody (None)."""
        if login is None:
            return ANONYMOUS_CALLER
        if isinstance(login, str):
            return CallerId(f"token {self._fingerprint(login)}")
        return CallerId(f"login {self._fingerprint(login.joined())}")

    def _fingerprint(self, text: str) -> str:
        return hashlib.blake2b(
            text.encode(errors="surrogatepass"), key=self._key, digest_size=_FINGERPRINT_BYTES
        ).hexdigest()
