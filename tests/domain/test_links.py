import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.links import next_link


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</v2/_catalog?n=2&last=b>; rel="next"', "/v2/_catalog?n=2&last=b"),
        ("</v2/a/tags/list?last=1>; rel=next", "/v2/a/tags/list?last=1"),
        ('<https://h/v2/_catalog?last=b>;rel="next"', "https://h/v2/_catalog?last=b"),
        ('</x>; REL = "Next"', "/x"),
        ('</x>; title="page"; rel="next"; type="a/b"', "/x"),
        ('</first>; rel="first", </x>; rel="next", </last>; rel="last"', "/x"),
        ('</x?a=1,2;3>; rel="next"', "/x?a=1,2;3"),
        ('<>; rel="next"', ""),
        ('</last>; rel="last", </x>; rel="next"; title="a, \\"b\\"; rel=prev"', "/x"),
        ('</x>; rel="start next"', "/x"),
        ('</a>; title="</b>; rel=next", </x>; rel=next', "/x"),
        ('</broken; rel="next", </x>; rel="next"', "/x"),
        ('</x>;rel="next";rel="prev"', "/x"),
        (",, ,</x>; rel=next,,", "/x"),
    ],
)
def test_the_next_page_is_found(header: str, target: str) -> None:
    assert next_link(header) == target


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "</x>",
        '</x>; rel="prev"',
        '</x>; rel="nextish"',
        "</x>; rel=nextish",
        '</x>; xrel="next"',
        '/x; rel="next"',
        '</x; rel="next"',
        '; rel="next"',
        '</x>; rel="prev"; rel="next"',
        '</x>; title="; rel=next"',
        '</x>; rel="next',
    ],
)
def test_without_a_next_page_there_is_none(header: str | None) -> None:
    assert next_link(header) is None


def test_the_first_of_several_next_pages_counts() -> None:
    assert next_link('</a>; rel="next", </b>; rel="next"') == "/a"


@given(st.text() | st.text('<>;,="relnxt /'))
def test_junk_is_passed_over_without_raising(header: str) -> None:
    target = next_link(header)
    assert target is None or f"<{target}>" in header
