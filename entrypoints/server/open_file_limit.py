"""The limit of open files, and how many connections it allows."""

import logging
import resource

_LOG = logging.getLogger("docker_image_proxy")

_PER_CONNECTION = 3
"""A client that receives content uses its socket, the duplicate of the socket for sendfile, and the file."""
_RESERVED = 256
"""For connections to upstreams, the index, and files that are being downloaded."""
_MINIMUM = 16


def raise_open_file_limit() -> None:
    """Raise the soft limit to the hard limit, also for processes that are forked later. Many systems start services
    with a soft limit of 1,024 because programs that use select(2) need it; this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _LOG.warning("cannot raise the limit of open files, which stays at %d: %s", soft, error)


def connections_within_open_file_limit() -> int:
    """How many connections one process can have with its limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(_MINIMUM, (soft - _RESERVED) // _PER_CONNECTION)
