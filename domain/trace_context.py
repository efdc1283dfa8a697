"""The trace of a request, as clients and servers pass it on (W3C Trace Context)."""

import re
from collections.abc import Sequence
from typing import Self

from domain.value import Value

# Section 3.2. Later versions may add parts at the end; version ff is invalid, and so are ids of zeros.
_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-[!-~]*)?"
)
_LONGEST = 512
"""Characters of `tracestate` that everyone must pass on (section 3.3.1.5), and the most that the mirror does."""
_STATE = re.compile(r"[ -~\t]*")
_SAMPLED = 0x01


class TraceContext(Value, frozen=True):
    """`trace_id` and `span_id`: hexadecimal; `is_sampled`: the sender records its spans; `parent` and `state`: the
    fields `traceparent` and `tracestate` as they were received.
    """

    trace_id: str
    span_id: str
    is_sampled: bool
    parent: str
    state: str = ""

    @classmethod
    def parse(cls, parents: Sequence[str], states: Sequence[str]) -> Self | None:
        """The context of a request with these fields. None if there is not exactly one valid `traceparent`; an invalid
        or too long `tracestate` is left out (section 4.3).
        """
        if len(parents) != 1 or len(parents[0]) > _LONGEST:
            return None
        matched = _PARENT.fullmatch(parents[0])
        if not matched or (matched["more"] and parents[0].startswith("00")):
            return None
        state = ",".join(states)
        if len(state) > _LONGEST or not _STATE.fullmatch(state):
            state = ""
        is_sampled = bool(int(matched["flags"], 16) & _SAMPLED)
        return cls(matched["trace"], matched["span"], is_sampled, parents[0], state)

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The fields to pass on."""
        parent = ("traceparent", self.parent)
        return [parent, ("tracestate", self.state)] if self.state else [parent]
