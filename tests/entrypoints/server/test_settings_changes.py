"""What a reload changes, and what it keeps until a restart."""

from pathlib import Path
from typing import Any

import pytest

from entrypoints.server.reload import Change, change_of
from entrypoints.settings import Settings, SettingsError
from entrypoints.settings.sources import build_settings
from tests.e2e.support.certificates import make_authority
from tests.entrypoints.service import basic
from tests.fakes.parts import SECRET, settings_of

ENTRY = basic("ann", "a-password-of-hers").partition(" ")[2]


def changed(before: dict[str, Any], after: dict[str, Any]) -> Change:
    in_force = settings_of(**before)
    return change_of(in_force, settings_of(**after))


def test_changed_settings_take_effect_and_are_named_without_their_values() -> None:
    change = changed({"tag_ttl": 60, "grant_ttl": 7}, {"tag_ttl": 5, "grant_ttl": 7, "accounts": ENTRY})
    assert change.settings.tag_ttl == 5
    assert [account.username for account in change.settings.accounts] == ["ann"]
    assert change.changed == ("ACCOUNTS", "TAG_TTL")
    assert change.held_back == ()
    assert "a-password-of-hers" not in repr((change.changed, change.held_back))


def test_equal_settings_change_nothing() -> None:
    assert changed({}, {}).changed == ()


def test_settings_that_need_a_restart_stay_and_others_change() -> None:
    change = changed(
        {"host": "127.0.0.1", "port": 5000, "workers": 2},
        {"host": "::1", "port": 5001, "metrics_port": 9100, "workers": 3, "tag_ttl": 1},
    )
    in_force = change.settings
    assert (in_force.host, in_force.port, in_force.workers, in_force.tag_ttl) == ("127.0.0.1", 5000, 2, 1)
    assert change.held_back == ("HOST", "PORT", "METRICS_PORT", "WORKERS")
    assert change.changed == ("TAG_TTL",)


def test_settings_that_contradict_the_old_host_are_refused() -> None:
    """The new settings allow everyone to use the mirror's own login, because they listen on loopback only."""
    login = {"upstream_identity": "service", "upstream_username": "robot", "upstream_password": "its password"}
    with pytest.raises(SettingsError, match=r"^with HOST as before: UPSTREAM_IDENTITY: .*'0\.0\.0\.0'"):
        changed({"host": "0.0.0.0", "accounts": ENTRY, **login}, {"host": "127.0.0.1", **login})


def with_tls(folder: Path) -> Settings:
    folder.mkdir()
    pair = make_authority(folder).server
    return settings_of(tls_cert=pair.certificate, tls_key=pair.key)


def test_tls_starts_and_ends_with_a_restart_only_but_its_files_can_change(tmp_path: Path) -> None:
    plain, secure, other = settings_of(), with_tls(tmp_path / "a"), with_tls(tmp_path / "b")
    for before, after in ((plain, secure), (secure, plain)):
        change = change_of(before, after)
        assert change.held_back == ("TLS_CERT", "TLS_KEY")
        assert change.settings.tls_cert == before.tls_cert
        assert change.changed == ()
    change = change_of(secure, other)
    assert (change.changed, change.held_back) == (("TLS_CERT", "TLS_KEY"), ())


def without_secret() -> Settings:
    return build_settings({"upstream_registry": "https://upstream.test", "host": "127.0.0.1"})


def test_a_random_secret_stays_because_it_has_signed_tokens() -> None:
    first = without_secret()
    second = change_of(first, without_secret())
    assert second.settings.server_secret == first.server_secret
    assert second.changed == ()


def test_a_configured_secret_replaces_a_random_one_and_a_random_one_replaces_a_configured_one() -> None:
    chance, chosen = without_secret(), settings_of()
    change = change_of(chance, chosen)
    assert change.settings.server_secret.value == SECRET
    change = change_of(chosen, chance)
    assert change.settings.server_secret == chance.server_secret
    assert change.changed == ("SERVER_SECRET",)
