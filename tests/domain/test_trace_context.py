"""What is accepted as the trace of a client (W3C Trace Context)."""

import pytest

from domain.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_valid_context_is_read_and_passed_on_unchanged() -> None:
    found = TraceContext.parse([PARENT], ["a=1", "b=2"])
    assert found == TraceContext(TRACE, SPAN, is_sampled=True, parent=PARENT, state="a=1,b=2")
    assert found.headers == [("traceparent", PARENT), ("tracestate", "a=1,b=2")]


def test_a_context_without_state_has_one_field() -> None:
    found = TraceContext.parse([f"00-{TRACE}-{SPAN}-00"], [])
    assert found
    assert not found.is_sampled
    assert found.headers == [("traceparent", f"00-{TRACE}-{SPAN}-00")]


def test_a_later_version_may_have_more_parts() -> None:
    found = TraceContext.parse([f"01-{TRACE}-{SPAN}-03-more"], [])
    assert found
    assert (found.trace_id, found.is_sampled) == (TRACE, True)


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [PARENT, PARENT],
        [""],
        [PARENT.upper()],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"{PARENT}-more"],
        [f"{PARENT}\n"],
        [f"01-{TRACE}-{SPAN}-01-a b"],
        [f"01-{TRACE}-{SPAN}-01-{'a' * 512}"],
    ],
)
def test_an_invalid_parent_makes_no_context(parents: list[str]) -> None:
    assert TraceContext.parse(parents, ["a=1"]) is None


@pytest.mark.parametrize("state", ["a=\r\nX: b", "a=\u00e9", "a" * 513])
def test_an_invalid_state_is_left_out(state: str) -> None:
    found = TraceContext.parse([PARENT], [state])
    assert found
    assert found.headers == [("traceparent", PARENT)]
