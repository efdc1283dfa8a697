"""Accounts that are kept in several places."""

from domain.access import Account, Credentials
from domain.ports import AccountDirectory


class CombinedAccountDirectory:
    """Plays the AccountDirectory: an account is good where any of them has it. The quick ones come first."""

    def __init__(self, *directories: AccountDirectory) -> None:
        self._directories = directories

    def find(self, credentials: Credentials) -> Account | None:
        found = (directory.find(credentials) for directory in self._directories)
        return next((account for account in found if account), None)

    def knows(self, name: str) -> bool:
        return any(directory.knows(name) for directory in self._directories)

    def stamp(self, name: str) -> str:
        return next((stamp for directory in self._directories if (stamp := directory.stamp(name))), "")
