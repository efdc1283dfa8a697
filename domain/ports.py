"""Ports of the domain: what the rules need from outside."""

from collections.abc import Mapping
from typing import Protocol

from domain.access import Account, Credentials
from domain.value import Value


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def midnight(self) -> float:
        """When this day began in the time zone of the machine, in seconds since 1970-01-01 UTC."""


class SignedToken(Value, frozen=True):
    """The `typ` header and the claims of a JWS."""

    token_type: str
    claims: Mapping[str, object]


class TokenCodec(Protocol):
    """Signs tokens with the server's secret and reads them back."""

    def sign(self, token_type: str, claims: Mapping[str, object]) -> str:
        """A compact JWS (RFC 7515 section 7.1) with HS256 and `typ` = `token_type`."""

    def verify(self, text: str) -> SignedToken | None:
        """The signed token; None if the form, algorithm or signature is not valid. Does not check times."""

    def read_unverified(self, text: str) -> SignedToken | None:
        """The token without verification; None if the text is not a compact JWS with JSON claims."""


class AccountDirectory(Protocol):
    """The accounts that the operator configured."""

    def find(self, credentials: Credentials) -> Account | None:
        """The account with these credentials and the stamp of the entry that matched, or None.

        Takes the same time for a wrong user name as for a wrong password. May be slow, so call it in a thread.
        """

    def some_account(self) -> str:
        """The name of one account, always the same while the accounts do not change; "" if there are none."""

    def stamp(self, name: str) -> str:
        """A text that changes when the password of the account changes; "" if the account does not exist.

        Tokens contain the stamp, so it is a hash with a secret key over the name and the password entry: without the
        key, the stamp cannot be used to test passwords. Every process computes the same stamp for the same key, name
        and entry.
        """


class PublicSuffixes(Protocol):
    """The public suffix list."""

    def registrable_domain(self, host: str) -> str | None:
        """`example.co.uk` for `a.b.example.co.uk`; None for a public suffix itself, an address or a bare word."""
