import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.challenge import Challenge, parse_challenges
from tests.domain.strategies import challenges


def only(line: str) -> Challenge:
    (challenge,) = parse_challenges([line])
    return challenge


@given(challenges)
def test_a_printed_challenge_is_read_back(challenge: Challenge) -> None:
    assert parse_challenges([str(challenge)]) == (challenge,)


@given(st.lists(challenges, max_size=4))
def test_challenges_of_several_lines_keep_their_order(several: list[Challenge]) -> None:
    assert parse_challenges(map(str, several)) == tuple(several)


@given(st.lists(challenges, max_size=4), st.sampled_from([", ", ",", " , "]))
def test_several_challenges_share_one_line(several: list[Challenge], comma: str) -> None:
    assert parse_challenges([comma.join(map(str, several))]) == tuple(several)


@given(st.text() | st.text("abAB019=,\" \\\t:/._-'~%"))
def test_malformed_text_is_skipped_without_raising(line: str) -> None:
    assert all(challenge.scheme for challenge in parse_challenges([line, "Bearer " + line]))


@given(st.text("abAB019=,\" \\\t:/._-'~%"))
def test_a_leniently_parsed_challenge_is_printed_strictly(line: str) -> None:
    for challenge in parse_challenges([line]):
        assert parse_challenges([str(challenge)]) == (challenge,)


def test_the_challenge_of_docker_hub_is_read() -> None:
    line = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
    assert only(line) == Challenge.of(
        "Bearer", realm="https://auth.docker.io/token", service="registry.docker.io", scope="repository:a/b:pull,push"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Bearer realm=https://x/t,service=s", {"realm": "https://x/t", "service": "s"}),
        (
            "Bearer realm=https://x/t,service=s,scope=repository:a/b:pull,push",
            {"realm": "https://x/t", "service": "s", "scope": "repository:a/b:pull,push"},
        ),
        (
            'Bearer scope=repository:h:5000/a/b:pull,push,delete,realm="https://x/t"',
            {"scope": "repository:h:5000/a/b:pull,push,delete", "realm": "https://x/t"},
        ),
        ("Bearer realm=https://x/t?a=1&b=2, service=s", {"realm": "https://x/t?a=1&b=2", "service": "s"}),
        ('Bearer realm="https://x/t?a=1,b=2"', {"realm": "https://x/t?a=1,b=2"}),
        ('Bearer realm="https://nvcr.io/proxy_auth"', {"realm": "https://nvcr.io/proxy_auth"}),
        ('Bearer realm="a \\"b\\" \\\\ \\c"', {"realm": 'a "b" \\ c'}),
        ('BEARER REALM = "r" ,\tService\t=\t"s"', {"realm": "r", "service": "s"}),
        ('Bearer realm="first",realm="second"', {"realm": "first"}),
        ('Bearer realm="",service="s"', {"realm": "", "service": "s"}),
        ('Bearer realm="r",', {"realm": "r"}),
        (', Bearer realm="r"', {"realm": "r"}),
        ("Bearer realm=r,", {"realm": "r"}),
        ('Bearer realm="r" service="s"', {"realm": "r", "service": "s"}),
    ],
)
def test_a_form_that_registries_send_is_parsed(line: str, expected: dict[str, str]) -> None:
    challenge = only(line)
    assert challenge.is_bearer
    assert dict(challenge.parameters) == expected


def test_bearer_and_basic_in_one_line_are_two() -> None:
    line = 'Bearer realm="https://x/t",service="s",scope="*",Basic realm="Codeberg"'
    assert parse_challenges([line]) == (
        Challenge.of("Bearer", realm="https://x/t", service="s", scope="*"),
        Challenge.of("Basic", realm="Codeberg"),
    )


def test_an_unquoted_scope_ends_before_another_challenge() -> None:
    line = "Bearer realm=https://x/t,scope=repository:a:pull,push, Basic realm=b"
    assert parse_challenges([line]) == (
        Challenge.of("Bearer", realm="https://x/t", scope="repository:a:pull,push"),
        Challenge.of("Basic", realm="b"),
    )


def test_an_unquoted_value_ends_before_a_bare_scheme() -> None:
    assert parse_challenges(["Bearer realm=https://x/t, Negotiate"]) == (
        Challenge.of("Bearer", realm="https://x/t"),
        Challenge("Negotiate"),
    )


def test_a_challenge_without_parameters_stands_anywhere() -> None:
    line = 'Negotiate, Bearer realm="r", NTLM'
    assert parse_challenges([line]) == (Challenge("Negotiate"), Challenge.of("Bearer", realm="r"), Challenge("NTLM"))


def test_a_quoted_value_may_look_like_another_challenge() -> None:
    value = 'x, Basic realm="y", scope=z'
    assert only(str(Challenge.of("Bearer", realm=value))).get("realm") == value


def test_empty_list_elements_are_passed_over() -> None:
    line = 'Bearer realm="r",, service="s", , Basic realm="b"'  # RFC 9110 section 5.6.1.2
    assert parse_challenges([line]) == (
        Challenge.of("Bearer", realm="r", service="s"),
        Challenge.of("Basic", realm="b"),
    )


@pytest.mark.parametrize("line", ["", " ", ",", '"', "=", '="x"', "\\", "@@@"])
def test_a_line_without_a_scheme_holds_none(line: str) -> None:
    assert parse_challenges([line]) == ()


@pytest.mark.parametrize("line", ['Bearer realm="open', "Bearer realm=", "Bearer"])
def test_a_challenge_with_malformed_parameters_keeps_its_scheme(line: str) -> None:
    assert parse_challenges([line])[0] == Challenge("Bearer")


@pytest.mark.parametrize(
    ("head", "unit", "tail"), [("Bearer", " ", '"'), ("", " ", '"'), ("Bearer a=b", ",a", ""), ("", "a,", "")]
)
def test_a_hostile_line_is_read_in_linear_time(head: str, unit: str, tail: str) -> None:
    def cost(count: int) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            parse_challenges([head + unit * count + tail])
            times.append(time.process_time() - began)
        return min(times)

    # Four times the length must cost four times as much, and not sixteen times as much.
    assert cost(16000) < 10 * max(cost(4000), 0.0002)


def test_every_parameter_is_printed_in_quotes() -> None:
    printed = str(only("Bearer realm=https://x/t,scope=repository:a:pull"))
    assert printed == 'Bearer realm="https://x/t",scope="repository:a:pull"'


def test_an_empty_parameter_is_left_out() -> None:
    assert str(Challenge.of("Bearer", realm="r", service=None, scope="")) == 'Bearer realm="r"'
    assert str(Challenge.of("Basic")) == "Basic"


def test_parameters_are_set_replaced_and_removed() -> None:
    challenge = Challenge.of("Bearer", realm="r", scope="s", error="e")
    changed = challenge.with_parameters(scope="t", error=None, service="n")
    assert changed == Challenge.of("Bearer", realm="r", scope="t", service="n")


def test_a_scheme_is_known_in_any_case() -> None:
    assert Challenge("bEARER").is_bearer
    assert Challenge("bASIC").is_basic
    assert not Challenge("Digest").is_bearer
    assert not Challenge("Digest").is_basic


def test_an_absent_parameter_is_none() -> None:
    assert Challenge.of("Bearer", realm="r").get("service") is None
