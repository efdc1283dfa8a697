"""FindTroubles: why this worker sends an upstream fewer requests now."""

from collections.abc import Iterable, Iterator, Mapping

from application.ports.activity import UpstreamTrouble
from application.upstreams.back_offs import Asker, BackOffs
from application.upstreams.outages import Outages
from domain.records import ANONYMOUS_CALLER, CallerId
from domain.upstreams import Upstream


class FindTroubles:
    """Reads what is known, and asks no upstream. As for allowances, everybody may know of the back-offs of the mirror
    and of anonymous callers; those of callers with a login of their own are private.
    """

    def __init__(
        self,
        back_offs: BackOffs,
        outages: Outages,
        mirror_callers: Mapping[Upstream, CallerId],
        upstreams: Iterable[Upstream],
    ) -> None:
        self._back_offs = back_offs
        self._outages = outages
        self._askers = {
            upstream: [
                Asker(upstream, caller, manifests)
                for caller in (ANONYMOUS_CALLER, mirror_callers.get(upstream))
                if caller
                for manifests in (False, True)
            ]
            for upstream in upstreams
        }

    def __call__(self) -> Iterator[UpstreamTrouble]:
        """Of each upstream, the back-off that ends last, and a failure of the last seconds."""
        for upstream, askers in self._askers.items():
            back_offs = [one for asker in askers if (one := self._back_offs.current(asker))]
            if back_offs:
                last = max(back_offs, key=lambda one: one.until)
                yield UpstreamTrouble(upstream, is_back_off=True, message=last.message, until=last.until)
            if failure := self._outages.failure(upstream):
                until, message = failure
                yield UpstreamTrouble(upstream, is_back_off=False, message=message, until=until)
