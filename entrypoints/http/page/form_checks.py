"""Checks that a form was sent by a page of this service, and by the operator to whom the page was shown.

A browser sends an HTTP Basic login with every request for this service, also with a form of another site (cross-site
request forgery). So each form contains a token that only this service can make, and what the browser says about the
origin of the request must not name another site.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256

from domain.errors import Denied

FIELD = "token"
_LIFETIME_SECONDS = 4 * 3600
_ORIGIN_FIELDS = ("origin", "sec-fetch-site")


def make_token(key: bytes, operator: str, stamp: str, now: float) -> str:
    """The token of a form for this operator: its expiry in seconds since 1970, and a signature. `stamp`: the state of
    the operator's password, so that a new password ends the token.
    """
    return _signed(key, operator, stamp, str(int(now) + _LIFETIME_SECONDS))


def check_token(key: bytes, operator: str, stamp: str, now: float, token: str) -> None:
    """Raises Denied for a token that is forged, expired, or of another operator."""
    expires = token.partition(".")[0]
    if not hmac.compare_digest(_signed(key, operator, stamp, expires).encode(), token.encode(errors="replace")):
        raise Denied("this form was not sent by a page of this mirror for you; open the page again")
    if float(expires) <= now:
        raise Denied("this form is too old; open the page again")


def check_origin(headers: Mapping[str, str], host: str) -> None:
    """Raises Denied for a request that another site has caused. A client that is no browser sends neither field.
    `host`: that of the service as the client knows it.
    """
    origin, site = (headers.get(name) for name in _ORIGIN_FIELDS)
    # The scheme is not compared: a proxy that ends TLS may not pass it on.
    is_foreign_origin = origin is not None and origin.partition("://")[2].lower() != host.lower()
    if is_foreign_origin or (site is not None and site != "same-origin"):
        raise Denied("this form was sent by another site")


def _signed(key: bytes, operator: str, stamp: str, expires: str) -> str:
    # The stamp has only hexadecimal digits and the expiry no space, so different values give different texts.
    signature = hmac.new(key, f"{expires} {stamp} {operator}".encode(), sha256).hexdigest()
    return f"{expires}.{signature}"
