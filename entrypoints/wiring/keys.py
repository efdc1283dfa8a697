"""Keys that are derived from SERVER_SECRET."""

import hashlib

from entrypoints.settings import Settings


def server_secret(settings: Settings) -> bytes:
    """The secret that signs tokens."""
    return settings.server_secret.value.encode()


def derived_key(settings: Settings, purpose: str) -> bytes:
    """A key that becomes invalid together with the secret that signs tokens, because it is derived from it. The key
    differs from the secret, so that a hash that is made with it is never usable as a signature.

    `purpose`: at most 16 bytes. All workers and replicas with the same SERVER_SECRET derive the same key.
    """
    return hashlib.blake2b(server_secret(settings), person=purpose.encode()).digest()
