"""The contract of PublicSuffixes. The real list is a file in its package and needs no network, so there is no fake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.public_suffixes import BundledPublicSuffixes
from domain.ports import PublicSuffixes

EACH = pytest.mark.parametrize("suffixes", [pytest.param(BundledPublicSuffixes(), id="real")])


@EACH
@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("example.com", "example.com"),
        ("registry.example.com", "example.com"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("registry-1.docker.io", "docker.io"),
        ("mine.github.io", "mine.github.io"),
        ("a.mine.github.io", "mine.github.io"),
    ],
)
def test_a_name_has_a_registrable_domain(suffixes: PublicSuffixes, host: str, domain: str) -> None:
    assert suffixes.registrable_domain(host) == domain


@EACH
@pytest.mark.parametrize(
    "host", ["com", "co.uk", "github.io", "localhost", "registry", "registry.corp", "a.b.local", ""]
)
def test_a_public_suffix_or_a_single_label_has_no_registrable_domain(suffixes: PublicSuffixes, host: str) -> None:
    assert suffixes.registrable_domain(host) is None


@EACH
@given(address=st.ip_addresses().map(str))
def test_an_ip_address_has_no_registrable_domain(suffixes: PublicSuffixes, address: str) -> None:
    assert suffixes.registrable_domain(address) is None
    assert suffixes.registrable_domain(f"[{address}]") is None


@EACH
@given(
    labels=st.lists(st.text("abc019-", min_size=1, max_size=5), max_size=4), domain=st.sampled_from(["com", "co.uk"])
)
def test_subdomains_have_the_same_registrable_domain(suffixes: PublicSuffixes, labels: list[str], domain: str) -> None:
    assert suffixes.registrable_domain(".".join([*labels, "example", domain])) == f"example.{domain}"


@EACH
def test_letter_case_and_a_final_dot_are_ignored(suffixes: PublicSuffixes) -> None:
    assert suffixes.registrable_domain("Registry.EXAMPLE.Com.") == "example.com"
