import hmac

import pytest

from adapters.accounts.fixed import FixedAccountDirectory
from domain.access import Account, Credentials

ACCOUNTS = [Credentials("alice", "sesame"), Credentials("bob", "hunter2"), Credentials("carol", "x" * 1000)]


@pytest.mark.parametrize("offered", [*ACCOUNTS, Credentials("alice", "s"), Credentials("mallory", "")], ids=repr)
def test_every_account_is_compared_in_constant_time(offered: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def counting(known: bytes, given: bytes) -> bool:
        compared.append((len(known), len(given)))
        return known == given

    monkeypatch.setattr(hmac, "compare_digest", counting)
    found = FixedAccountDirectory(ACCOUNTS, b"key").find(offered)
    assert found == (Account(offered.username) if offered in ACCOUNTS else None)
    assert compared == [(32, 32)] * len(ACCOUNTS)


def test_a_prefix_of_an_account_is_rejected() -> None:
    directory = FixedAccountDirectory(ACCOUNTS, b"key")
    for offered in (Credentials("alice", "sesam"), Credentials("alice", "sesame "), Credentials("alic", "esesame")):
        assert directory.find(offered) is None
