"""The certificate authorities of the system, which connections to upstreams trust."""

from adapters.upstream.connections import read_system_authorities


def prepare_authorities() -> None:
    """Read them, for all connections that are made from now on. Called before the workers are forked, which then share
    what was read, and at each reload.
    """
    read_system_authorities()
