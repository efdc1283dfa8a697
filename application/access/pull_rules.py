"""PullRules: the operator's access rules, applied to authenticated and anonymous callers."""

from application.access.access_request import AccessCheck
from application.ports.telemetry import EventSink
from domain.access_rules import AccessRules
from domain.errors import Denied, NameInvalid
from domain.events import PullDenied
from domain.names import RepositoryName
from domain.upstreams import Source


class PullRules:
    """The rules narrow what the trust row and the upstream give, and never widen it. They do not apply to the operator,
    who can change them anyway.
    """

    def __init__(self, rules: AccessRules, events: EventSink) -> None:
        self._rules = rules
        self._events = events

    @property
    def hide_names(self) -> bool:
        """Whether the rules may hide a name from a caller."""
        return self._rules.restrict

    def check(self, check: AccessCheck) -> None:
        """Raises Denied if the request is for a repository that the account may not pull."""
        source = check.request.source
        if source is None or check.request.caller.is_operator or self._rules.may_pull(check.account, source):
            return
        self._events.emit(PullDenied(check.account, source.upstream.url, str(source.repository)))
        raise Denied("the access rules of this mirror do not allow you to pull this repository")

    def shows(self, check: AccessCheck, name: object) -> bool:
        """Whether the account may pull the repository with this name in a list of the upstream."""
        if not isinstance(name, str):
            return False
        try:
            source = Source(check.request.upstream, RepositoryName(name))
        except NameInvalid:
            return False  # no client can request this name
        return check.request.caller.is_operator or self._rules.may_pull(check.account, source)
