"""AccountPolicy: who may use the service, and which of the wanted scopes they get."""

from domain.access import ANONYMOUS, Account, Credentials, Scope, ScopeSet
from domain.ports import AccountDirectory


class AccountPolicy:
    """Knows accounts and rules; its answer to wanted scopes is always a subset of what was asked."""

    def __init__(self, accounts: AccountDirectory) -> None:
        self._accounts = accounts

    def authenticate(self, credentials: Credentials) -> Account | None:
        """The account that these credentials open, None where they open none. May take as long as a slow hash does."""
        return self._accounts.find(credentials)

    def still_exists(self, name: str) -> bool:
        """Whether there is an account of this name now."""
        return name != ANONYMOUS and self._accounts.knows(name)

    def account(self, name: str) -> Account:
        """The account of this name as it is now; its stamp is "" where it does not exist."""
        return Account(name, self.stamp(name))

    def is_unchanged(self, account: Account) -> bool:
        """Whether the account exists and has the stamp that `account` has: a token ends with the password that it was
        given for, also where another account of the same name follows. The anonymous caller has no account.
        """
        stamp = self.stamp(account.name)
        return stamp != "" and stamp == account.stamp

    def stamp(self, name: str) -> str:
        """What was found of the account holds as long as this does; "" where it does not exist."""
        return self._accounts.stamp(name) if name != ANONYMOUS else ""

    def permit(self, wanted: ScopeSet) -> ScopeSet:
        """What of the wanted scopes a mirror gives: pulls and listings, never a push.

        Scopes that it does not know are dropped, not refused: containerd asks for one beside the challenge's
        own (distribution, spec/auth/token.md: fewer rights than wanted is no error).
        """
        return ScopeSet.of(granted for scope in wanted if (granted := self._reduce(scope)))

    def _reduce(self, scope: Scope) -> Scope | None:
        if scope.repository and scope.actions & {"pull", "*"}:
            return Scope.pull(scope.repository)
        for listing in (Scope.catalog(), Scope.search()):
            if scope.covers(listing):
                return listing
        return None
