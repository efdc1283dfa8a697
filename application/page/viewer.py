"""IdentifyViewer: who looks at the page."""

from dataclasses import replace

from application.access.access_request import Caller
from application.access.check_login import CheckLogin
from application.ports.telemetry import current_record
from domain.access import ANONYMOUS
from domain.authorization import Basic
from domain.errors import CredentialsRejected
from domain.ports import AccountDirectory
from domain.value import Value


class Viewer(Value, frozen=True):
    """A person who looks at the page. `caller`: the same person as a caller of the registry API, with the login that
    counts here; `account`: the checked account or operator, or ANONYMOUS. The login of an operator is not one of the
    registry API, so the caller of an operator has none.
    """

    caller: Caller
    account: str = ANONYMOUS
    is_operator: bool = False


class IdentifyViewer:
    """Checks the login of an account of the mirror or of an operator, whose names differ. A mirror that has neither
    takes no login on the page: what a browser sends is not used, and not sent to an upstream.
    """

    def __init__(self, logins: CheckLogin, operators: AccountDirectory, *, takes_logins: bool) -> None:
        """`logins`: checks accounts and operators alike, so that the response time does not tell them apart."""
        self._logins = logins
        self._operators = operators
        self._takes_logins = takes_logins

    async def __call__(self, caller: Caller) -> Viewer:
        """Raises CredentialsRejected for a wrong login, TooManyAttempts."""
        if not self._takes_logins or caller.authorization is None:
            return Viewer(replace(caller, authorization=None))
        if not isinstance(caller.authorization, Basic):
            raise CredentialsRejected("the page takes a user name and a password")
        account = await self._logins(caller.authorization.credentials, caller.address)
        if account is None:
            raise CredentialsRejected("wrong user name or password")
        current_record().passed(account.name, account.stamp)
        if self._operators.stamp(account.name):
            return Viewer(replace(caller, authorization=None, is_operator=True), account.name, is_operator=True)
        return Viewer(caller, account.name)
