"""The sizes and numbers of a run: those of a full run, and small ones for a smoke run of the same steps."""

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Plan:
    rounds: int = 3
    big: int = GIB  # one blob
    small: int = 200 * MIB  # one blob, for many clients
    layer: int = 50 * MIB  # four of these are the image
    ranged: int = 96 * MIB  # one blob, for clients that read it in ranges
    piece: int = 8 * MIB  # one range of it
    spots: int = 200  # ranges of 64 KiB, spread over the small blob
    wrk_seconds: int = 3
    crowd: int = 100  # clients whose memory is measured
    # The memory of the other servers reaches its peak within seconds; a whole download would take minutes.
    peer_seconds: float = 10
    slow_clients: int = 1000
    slow_rate: int = 64 * KIB
    is_quick: bool = False
    is_watched: bool = False
    """Whether the page of the service is open, and its metrics are scraped."""

    @property
    def space(self) -> int:
        """Bytes for the content of the upstream, three caches of it and two more blobs."""
        return 4 * (self.big + self.small + 4 * self.layer) + 2 * self.big + 2 * self.ranged

    @property
    def memory(self) -> int:
        """The most bytes that processes and sockets need. docker-registry has a buffer of 4 MiB for each client."""
        return self.slow_clients * 5 * MIB + GIB


FULL = Plan()
QUICK = Plan(
    rounds=1, big=64 * MIB, small=16 * MIB, layer=MIB, ranged=12 * MIB, piece=MIB, spots=20, wrk_seconds=1,
    peer_seconds=2, is_quick=True,
)  # fmt: skip


def size_text(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


def blob_case(size: int, clients: int) -> str:
    """The name of a case in the results and the tables."""
    return f"{size_text(size)}, {clients} client{'s' if clients > 1 else ''}"
