"""The port to the main process, which reloads the settings for all workers."""

from typing import Protocol

from domain.value import Value


class ReloadResult(Value, frozen=True):
    """How a reload of the settings ended. `number`: counts the reloads of this service; `message`: as it is
    logged, without secrets.
    """

    number: int
    message: str
    is_error: bool


class Reloads(Protocol):
    """The same for all workers."""

    def request(self) -> None:
        """Ask for a reload, as SIGHUP does. Does not wait."""

    def last(self) -> ReloadResult | None:
        """The result of the last reload; None if there was none."""
