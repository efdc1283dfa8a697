"""What the rules need from outside."""

from collections.abc import Mapping
from typing import Protocol

from domain.access import Account, Credentials
from domain.tokens import SignedToken


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class TokenCodec(Protocol):
    """Signs tokens with the server's secret and reads them back."""

    def sign(self, token_type: str, claims: Mapping[str, object]) -> str:
        """A compact JWS (RFC 7515 section 7.1) with HS256 and `typ` = `token_type`."""
        ...

    def verify(self, text: str) -> SignedToken | None:
        """What was signed; None where form, algorithm or signature is not ours. Times are not looked at."""
        ...

    def read_unverified(self, text: str) -> SignedToken | None:
        """What the text claims, unverified; None where it is no compact JWS with JSON inside."""
        ...


class AccountDirectory(Protocol):
    """The accounts that the operator configured."""

    def find(self, credentials: Credentials) -> Account | None:
        """The account with exactly these credentials, with the stamp of the entry that they were compared with; None
        where there is none. Takes the same time whether the user or the password is wrong, and may take so long that
        it is none of the event loop's steps.
        """
        ...

    def knows(self, name: str) -> bool:
        """Whether an account of this name still exists."""
        ...

    def stamp(self, name: str) -> str:
        """Another text when the account's password is another, "" where there is no such account.

        It goes into tokens, so it is computed with a secret key from the name and from what the password is checked
        against: without the key nobody can try passwords against it. The same key, name and password entry give the
        same text in every process.
        """
        ...


class PublicSuffixes(Protocol):
    """The public suffix list."""

    def registrable_domain(self, host: str) -> str | None:
        """`example.co.uk` for `a.b.example.co.uk`; None for a public suffix itself, an address or a bare word."""
        ...
