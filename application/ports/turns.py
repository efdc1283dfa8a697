"""The port to turns: of several workers and replicas that need the same manifest, one requests it from the upstream."""

from collections.abc import Sequence
from typing import Protocol

from domain.upstreams import Source
from domain.value import Value

TURN_SECONDS = 3.0
"""A turn ends after this time. If its holder dies, the others wait no longer. It is shorter than the time that a
request with an older answer waits for the upstream, so that the death of a holder does not look like an outage.
"""


class Turn(Value, frozen=True):
    """The turn for these names of one repository: tags and digests. It contains nothing about the caller. `id`: random,
    or "" if all have the turn at once.
    """

    source: Source
    names: tuple[str, ...]
    id: str


class Turns(Protocol):
    """Gives a turn to one request at a time. A turn saves requests to the upstream and proves nothing: each request
    still needs the permission of its own caller.

    The methods never raise. If the shared index does not answer, all requests have the turn at once.
    """

    async def take(self, source: Source, names: Sequence[str]) -> Turn | None:
        """The turn; None if another request has the turn for one of the names."""

    async def add(self, source: Source, name: str, other: str) -> None:
        """If a turn for `name` runs, it is now for the name `other` too."""

    async def is_over(self, source: Source, names: Sequence[str]) -> bool:
        """Whether no turn for one of these names runs."""

    async def end(self, turn: Turn, added: Sequence[str] = ()) -> None:
        """End the turn, unless it has ended and another request has taken it. `added`: names that others may have
        added.
        """
