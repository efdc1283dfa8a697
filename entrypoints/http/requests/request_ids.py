"""The id of a request: the client's, if it sent one that is safe to log and to pass on, otherwise a new one."""

import os
import re
from collections.abc import Sequence
from itertools import count

HEADER = "x-request-id"
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")
TRACING = frozenset({HEADER, "traceparent", "tracestate", "baggage"})
"""Fields in lower case that differ between requests which ask for the same."""


class RequestIds:
    """Ids of one worker: a random beginning and a number. To make one costs a fraction of a UUID. All have the same
    length, so that refused responses have, too.
    """

    def __init__(self) -> None:
        self._beginning = os.urandom(8).hex()
        self._numbers = count(1)

    def id_of(self, given: Sequence[str]) -> str:
        """`given`: the values of the field of the request."""
        if len(given) == 1 and _SAFE.fullmatch(given[0]):
            return given[0]
        return f"{self._beginning}{next(self._numbers):08x}"


def without_tracing(head: bytes) -> bytes:
    """The head of a request without the fields in TRACING."""
    return b"\r\n".join(
        line for line in head.split(b"\r\n") if line.partition(b":")[0].lower().decode("latin-1") not in TRACING
    )
