"""The public suffix list that the publicsuffixlist package contains. It is never looked up over the network."""

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from publicsuffixlist import PSLFILE, PublicSuffixList

_KEPT = 16
"""Top-level domains whose rules are kept in memory."""


class BundledPublicSuffixes:
    """Implements PublicSuffixes."""

    def __init__(self) -> None:
        self._rules_under = lru_cache(_KEPT)(_rules_under)

    def registrable_domain(self, host: str) -> str | None:
        """None for IP addresses and for names without a public suffix, such as `localhost` and `registry.corp`."""
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            name = host.lower().rstrip(".")
            domain: str | None = self._rules_under(name.rpartition(".")[2]).privatesuffix(name)
            return domain
        return None


def _rules_under(top: str) -> PublicSuffixList:
    """The rules for names under this top-level domain. No other rule matches such a name. To parse them takes a few
    milliseconds; to parse the 10,000 rules of the whole list would delay the start of each worker by a tenth of a
    second.
    """
    with suppress(UnicodeError):  # it is in Unicode already, or not a name
        top = top.encode("ascii").decode("idna")  # the file has names in Unicode
    return PublicSuffixList(_lines_under(top), accept_unknown=False)


def _lines_under(top: str) -> Iterator[str]:
    with Path(PSLFILE).open(encoding="utf-8") as lines:
        for line in lines:
            if line.split(" ")[0].rstrip().rpartition(".")[2] == top:
                yield line
