"""Several account directories as one."""

from domain.access import Account, Credentials
from domain.ports import AccountDirectory


class CombinedAccountDirectory:
    """Implements AccountDirectory. Asks the directories in order, so put the fast ones first."""

    def __init__(self, *directories: AccountDirectory) -> None:
        self._directories = directories

    def find(self, credentials: Credentials) -> Account | None:
        found = (directory.find(credentials) for directory in self._directories)
        return next((account for account in found if account), None)

    def some_account(self) -> str:
        return next((name for directory in self._directories if (name := directory.some_account())), "")

    def stamp(self, name: str) -> str:
        return next((stamp for directory in self._directories if (stamp := directory.stamp(name))), "")
