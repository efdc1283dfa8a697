import socket
from pathlib import Path
from typing import Never

import pytest
from publicsuffixlist import PSLFILE, PublicSuffixList

from adapters.public_suffixes import BundledPublicSuffixes


def test_no_lookup_uses_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Never:
        raise AssertionError("the network was asked")

    for name in ("socket", "getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    assert BundledPublicSuffixes().registrable_domain("registry.example.com") == "example.com"


@pytest.mark.parametrize("host", ["example.nosuchsuffix", "a.example.nosuchsuffix", "host.internal", "x.y.lan"])
def test_an_unknown_suffix_is_no_suffix(host: str) -> None:
    assert BundledPublicSuffixes().registrable_domain(host) is None


@pytest.mark.parametrize(
    "host", ["", ".", "..", "a..com", ".com", "-", "é.com", "x" * 5000, "a." * 500 + "com", "[", "[::1", "1.2.3"]
)
def test_a_host_of_any_form_is_answered(host: str) -> None:
    domain = BundledPublicSuffixes().registrable_domain(host)
    assert domain is None or host.endswith(domain)


def test_the_answers_are_those_of_the_whole_list() -> None:
    whole, suffixes = PublicSuffixList(accept_unknown=False), BundledPublicSuffixes()
    rules = [line.strip() for line in Path(PSLFILE).read_text("utf-8").splitlines() if line and line[:2] != "//"]
    special = [rule for rule in rules if rule[0] in "*!" or not rule.isascii()]
    assert len(special) > 100
    for rule in rules[::200] + special[::20]:
        for name in (rule.lstrip("*!."), rule.lstrip("*!.").encode("idna").decode()):
            for host in (name, f"a.{name}", f"a.b.{name}", f"a.b.c.{name}"):
                assert suffixes.registrable_domain(host) == whole.privatesuffix(host), host
