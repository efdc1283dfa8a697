"""The port to the number that changes when something was taken out of the storage by hand."""

from typing import Protocol


class Epoch(Protocol):
    """Whoever remembers what the storage said drops it when the number is another than before."""

    async def read(self) -> int:
        """The number now; where it cannot be had, the last one that could."""
        ...

    async def advance(self) -> None:
        """Make it another one. Raises StorageFailed when it cannot be written: then workers go on as before."""
        ...
