"""IdentifyViewer: who looks at the page."""

from dataclasses import dataclass, replace

from application.access.access_request import Caller
from application.access.check_login import CheckLogin
from application.ports.telemetry import current_record
from domain.access import ANONYMOUS
from domain.authorization import Basic
from domain.errors import CredentialsRejected


@dataclass(frozen=True)
class Viewer:
    """A person who looks at the page. `caller`: the same person as a caller of the registry API, with the login that
    counts here; `account`: the checked account, or ANONYMOUS.
    """

    caller: Caller
    account: str = ANONYMOUS


class IdentifyViewer:
    """Checks the login of an account of the mirror, as the token endpoint does. A mirror without accounts takes no
    login on the page: what a browser sends is not used, and not sent to an upstream.
    """

    def __init__(self, accounts: CheckLogin, *, has_accounts: bool) -> None:
        self._accounts = accounts
        self._has_accounts = has_accounts

    async def __call__(self, caller: Caller) -> Viewer:
        """Raises CredentialsRejected for a wrong login, TooManyAttempts."""
        if not self._has_accounts or caller.authorization is None:
            return Viewer(replace(caller, authorization=None))
        if not isinstance(caller.authorization, Basic):
            raise CredentialsRejected("the page takes a user name and a password")
        account = await self._accounts(caller.authorization.credentials, caller.address)
        if account is None:
            raise CredentialsRejected("wrong user name or password")
        current_record().passed(account.name, account.stamp)
        return Viewer(caller, account.name)
