"""PullRules: the operator's access rules, applied to whoever has got through the check."""

from application.access.access_request import AccessCheck
from application.ports.telemetry import EventSink
from domain.access_rules import AccessRules
from domain.errors import Denied, NameInvalid
from domain.events import PullDenied
from domain.names import RepositoryName
from domain.upstreams import Source


class PullRules:
    """They narrow what the trust row and the upstream give, and never widen it. They bind clients: who runs this
    service and warms its cache could change them anyway.
    """

    def __init__(self, rules: AccessRules, events: EventSink) -> None:
        self._rules = rules
        self._events = events

    @property
    def hide_names(self) -> bool:
        """Whether there could be a name that somebody is not shown."""
        return self._rules.restrict

    def check(self, check: AccessCheck) -> None:
        """Raises Denied where the wish is for a repository that the gate's account may not pull."""
        source = check.request.source
        if source is None or check.request.caller.is_operator or self._rules.may_pull(check.account, source):
            return
        self._events.emit(PullDenied(check.account, source.upstream.url, str(source.repository)))
        raise Denied("the access rules of this mirror do not allow you to pull this repository")

    def shows(self, check: AccessCheck, name: object) -> bool:
        """Whether a name in a list of the upstream's is one that the gate's account may pull."""
        if not isinstance(name, str):
            return False
        try:
            source = Source(check.request.upstream, RepositoryName(name))
        except NameInvalid:
            return False  # nobody could ask for it here
        return self._rules.may_pull(check.account, source)
