"""The certificate authorities of the system, which connections to upstreams trust."""

import ssl
from functools import cache


def new_context() -> ssl.SSLContext:
    """Trusts the certificate authorities of the system."""
    context = ssl.create_default_context()
    # Python 3.13 rejects certificates without some extensions that private authorities often omit and docker does not
    # require. The checks that make a certificate trusted stay on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


system_context = cache(new_context)
"""Made once, because it takes 50 ms and a megabyte. Workers share that of the process that has forked them."""


def read_system_authorities() -> None:
    """Read the certificate authorities of the system again, for the sessions that are made from now on."""
    system_context.cache_clear()
    system_context()
