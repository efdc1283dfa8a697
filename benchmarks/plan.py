"""How much is measured: the whole of it, or a smoke run of the same steps."""

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Plan:
    rounds: int = 3
    big: int = GIB  # one blob
    small: int = 200 * MIB  # one blob, for many clients
    layer: int = 50 * MIB  # four of these are the image
    wrk_seconds: int = 3
    crowd: int = 100  # clients whose memory is measured
    # A peer's memory is at its height within moments, and to let it finish would take minutes.
    peer_seconds: float = 10
    slow_clients: int = 1000
    slow_rate: int = 64 * KIB
    is_quick: bool = False

    @property
    def space(self) -> int:
        """What the upstream's content, three caches of it and one more blob take."""
        return 4 * (self.big + self.small + 4 * self.layer) + 2 * self.big

    @property
    def memory(self) -> int:
        """What processes and their sockets take at most: docker-registry has a buffer of 4 MiB for each client."""
        return self.slow_clients * 5 * MIB + GIB


FULL = Plan()
QUICK = Plan(rounds=1, big=64 * MIB, small=16 * MIB, layer=MIB, wrk_seconds=1, peer_seconds=2, is_quick=True)


def size_text(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


def blob_case(size: int, clients: int) -> str:
    """The name of a case: in the tables, and for whoever looks its numbers up."""
    return f"{size_text(size)}, {clients} client{'s' if clients > 1 else ''}"
