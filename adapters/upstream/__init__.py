"""Registries and their token servers, by HTTP."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _no_system_certificates() -> Iterator[None]:
    """OpenSSL reads an empty file instead of the system's certificates (SSL_CTX_set_default_verify_paths(3))."""
    before = os.environ.get("SSL_CERT_FILE")  # noqa: TID251 - restored, and not a setting of the service
    os.environ["SSL_CERT_FILE"] = os.devnull  # noqa: TID251 - as above
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]  # noqa: TID251 - as above
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before  # noqa: TID251 - as above


# aiohttp loads the system's certificates twice when it is imported, for sessions without a TLS context. The sessions of
# this package have their own (connections.py). To load them takes a fifth of all the time until the service answers.
with _no_system_certificates():
    import aiohttp  # noqa: F401
