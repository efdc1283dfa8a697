"""AccountPolicy: who may use the service, and which of the requested scopes they get."""

from domain.access import ANONYMOUS, Account, Credentials, Scope, ScopeSet
from domain.ports import AccountDirectory
from domain.value import Value


class AccountPolicy(Value, frozen=True):
    """Checks logins, and reduces requested scopes to those that the mirror grants."""

    accounts: AccountDirectory

    def authenticate(self, credentials: Credentials) -> Account | None:
        """The account with these credentials, or None. May take as long as a slow password hash."""
        return self.accounts.find(credentials)

    def account(self, name: str) -> Account:
        """The account with this name and its current stamp, which is "" if the account does not exist."""
        return Account(name, self.stamp(name))

    def some_account(self) -> Account:
        """One of the accounts; if there are none, the anonymous one, which has no stamp."""
        return self.account(self.accounts.some_account())

    def is_unchanged(self, account: Account) -> bool:
        """Whether the account exists and still has the stamp of `account`. So a token becomes invalid when the password
        changes, even if a new account gets the same name. False for the anonymous caller, which has no account.
        """
        return account.stamp != "" and account.stamp == self.stamp(account.name)

    def stamp(self, name: str) -> str:
        """The current stamp of the account; "" if it does not exist. A changed stamp invalidates earlier checks."""
        return self.accounts.stamp(name) if name != ANONYMOUS else ""

    def permit(self, wanted: ScopeSet) -> ScopeSet:
        """The part of the requested scopes that a mirror grants: pulls and listings, never a push.

        Drops unknown scopes instead of rejecting the request: containerd requests another scope beside that of the
        challenge, and a token may have fewer scopes than requested (distribution, spec/auth/token.md).
        """
        return ScopeSet.of(granted for scope in wanted if (granted := self._reduce(scope)))

    def _reduce(self, scope: Scope) -> Scope | None:
        if scope.repository and scope.actions & {"pull", "*"}:
            return Scope.pull(scope.repository)
        return next((listing for listing in (Scope.catalog(), Scope.search()) if scope.covers(listing)), None)
