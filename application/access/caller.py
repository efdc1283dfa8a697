"""The identity of a caller. What an upstream grants to one caller must not be given to another."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

from application.access.access_request import FOREVER, Access
from application.concurrency import LruCache
from application.ports.index import BELIEVED_SECONDS, CallerIdentity, KnowledgeIndex
from application.ports.upstream import SessionCredentials
from domain.access import Credentials
from domain.authorization import Basic, Bearer, UnsupportedAuthorization, parse_authorization
from domain.ports import Clock, TokenCodec
from domain.records import ANONYMOUS_CALLER, CallerId
from domain.tokens import IssuedToken
from domain.upstreams import Upstream

_REMEMBERED = 8192
_FINGERPRINT_BYTES = 20


class CallerIdentities:
    """Identifies a caller by a keyed fingerprint of the login, or of the token where this service has not seen a login.

    A user who fetches a token for each pull remains one caller, and the stored fingerprints give no access. `key` is
    the secret of this service; `mirrors` is the identity of the mirror's own login at each upstream.
    """

    def __init__(
        self, index: KnowledgeIndex, codec: TokenCodec, key: bytes, mirrors: Mapping[Upstream, CallerId], clock: Clock
    ) -> None:
        self._index = index
        self._codec = codec
        self._key = key
        self._mirrors = mirrors
        self._clock = clock
        self._known: LruCache[str, tuple[CallerIdentity, float]] = LruCache(_REMEMBERED)
        """The identities of tokens, and until when they may be used (seconds since 1970)."""

    async def of(self, access: Access) -> CallerIdentity:
        """The identity of the caller that this access was granted to."""
        credentials = access.credentials
        if isinstance(credentials, SessionCredentials):
            if access.is_mirrors and credentials.login is not None:
                return CallerIdentity(self._mirrors[access.request.upstream], access.ends_at)
            return CallerIdentity(self.caller_of(credentials.login), access.ends_at)
        match parse_authorization(credentials.raw):
            case Bearer(token):
                identity = await self._of_token(token)
                return CallerIdentity(identity.caller, min(identity.ends_at, access.ends_at))
            case Basic(login):
                return CallerIdentity(self.caller_of(login), access.ends_at)
            case UnsupportedAuthorization(raw):
                return CallerIdentity(self.caller_of(raw), access.ends_at)
            case None:
                return CallerIdentity(ANONYMOUS_CALLER, access.ends_at)

    async def remember(self, login: Credentials | str | None, token: IssuedToken) -> None:
        """The upstream gave this token for these credentials or this refresh token, or without a login (None).

        Returns when every worker knows the token: the client uses it at once, and any worker may get its request.
        """
        identity = CallerIdentity(self.caller_of(login), token.issued_at + token.expires_in)
        fingerprint = self._fingerprint(token.text)
        known = self._remembered(fingerprint) or await self._index.find_token(fingerprint)
        if known and known.caller != identity.caller:
            # The upstream gives the same token to several logins, so the token is an identity of its own.
            identity = replace(identity, caller=self.caller_of(token.text))
        self._remember(fingerprint, identity, token.text, self._clock.now())
        await self._index.keep_token(fingerprint, identity)

    async def _of_token(self, token: str) -> CallerIdentity:
        fingerprint = self._fingerprint(token)
        known = self._remembered(fingerprint)
        if known is None:
            read_at = self._clock.now() - self._index.age(fingerprint)
            known = await self._index.find_token(fingerprint) or self._of_unknown_token(token)
            self._remember(fingerprint, known, token, read_at)
        return known

    def _remembered(self, fingerprint: str) -> CallerIdentity | None:
        known = self._known.get(fingerprint)
        return known[0] if known and self._clock.now() < known[1] else None

    def _remember(self, fingerprint: str, identity: CallerIdentity, token: str, read_at: float) -> None:
        """A token that is an identity of its own remains one. Otherwise another worker or replica may have learnt that
        the upstream gives the same token to several logins.
        """
        is_own = identity.caller == self.caller_of(token)
        self._known.put(fingerprint, (identity, FOREVER if is_own else read_at + BELIEVED_SECONDS))

    def _of_unknown_token(self, token: str) -> CallerIdentity:
        """The identity of a token that the caller did not fetch through this mirror. The token's `exp` is not verified;
        it can only make grants shorter.
        """
        claimed = self._codec.read_unverified(token)
        try:
            ends_at = float(str(claimed.claims.get("exp"))) if claimed else FOREVER
        except (ValueError, OverflowError):
            ends_at = FOREVER
        return CallerIdentity(self.caller_of(token), FOREVER if math.isnan(ends_at) else ends_at)

    def caller_of(self, login: Credentials | str | None) -> CallerId:
        """The caller with these credentials, or with this token if its login is unknown; None: the anonymous one."""
        if login is None:
            return ANONYMOUS_CALLER
        if isinstance(login, str):
            return CallerId(f"token {self._fingerprint(login)}")
        return CallerId(f"login {self._fingerprint(login.joined())}")

    def _fingerprint(self, text: str) -> str:
        return hashlib.blake2b(
            text.encode(errors="surrogatepass"), key=self._key, digest_size=_FINGERPRINT_BYTES
        ).hexdigest()
