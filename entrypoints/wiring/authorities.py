"""The certificate authorities of the system, which connections to upstreams trust."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from adapters.upstream.system_authorities import read_system_authorities


def prepare_authorities() -> None:
    """Read them, for all connections that are made from now on. Called before the workers are forked, which then share
    what was read, and at each reload.
    """
    read_system_authorities()


@contextmanager
def authorities_prepared() -> Iterator[None]:
    """Prepare them in a thread, which has ended when the context ends. OpenSSL does not hold the interpreter lock while
    it reads them, so that modules can be imported meanwhile.
    """
    reading = Thread(target=prepare_authorities)
    reading.start()
    try:
        yield
    finally:
        reading.join()
