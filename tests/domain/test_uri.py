import pytest

from domain.uri import is_legal, percent_encoded


@pytest.mark.parametrize(
    "address",
    [
        "https://storage.test/a%2Fb%3Ac%7Ed?X-Amz-Credential=AK%2F2026%2Fs3&sig=a%2Bb%3D%3D&t=10%3A20%7E",
        "/a~b:c?x=~/:@,;+%20!$&'()*[]#",
        "http://[::1]:5000/a//b?x=1&&y=",
        "/%zz%",
        "",
    ],
)
def test_a_legal_address_stays_as_it_is(address: str) -> None:
    assert percent_encoded(address) == address
    assert is_legal(address)


@pytest.mark.parametrize(
    ("address", "legal"),
    [
        ("/a b?c d", "/a%20b?c%20d"),
        ("/é?ü=%C3%A9", "/%C3%A9?%C3%BC=%C3%A9"),
        ("/\udcff", "/%FF"),
        ("/a\tb\x00c\x7f", "/a%09b%00c%7F"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/a%20b c", "/a%20b%20c"),
    ],
)
def test_illegal_characters_are_percent_encoded(address: str, legal: str) -> None:
    assert percent_encoded(address) == legal


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_becomes_legal_once(byte: int) -> None:
    once = percent_encoded((b"/x" + bytes([byte]) + b"y").decode("utf-8", "surrogateescape"))
    assert is_legal(once)
    assert percent_encoded(once) == once
