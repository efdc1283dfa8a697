"""How many descriptors the service may have open, and how many connections those are enough for."""

import logging
import resource

_LOG = logging.getLogger("docker_image_proxy")

_PER_CONNECTION = 3
"""A client that receives content has its socket, the duplicate that the kernel copies to, and the file."""
_RESERVED = 256
"""For connections to upstreams, the index, and files that are being filled."""
_FEWEST = 16


def raise_descriptor_limit() -> None:
    """The soft limit becomes the hard limit; processes that are forked later have it too. Many systems start services
    with a soft limit of 1,024 for the sake of programs that use select(2), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _LOG.warning("the limit of open files stays at %d: %s", soft, error)


def connections_for_descriptors() -> int:
    """How many connections the limit of open files is enough for in one process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(_FEWEST, (soft - _RESERVED) // _PER_CONNECTION)
