"""Unsafe settings stop the start with exit status 2 and a message of one line without secrets."""

import pytest

from tests.e2e.support.docker import Ran, run
from tests.e2e.support.processes import free_port
from tests.e2e.support.service import command, environment
from tests.e2e.support.upstreams import ACCOUNTS, TokenUpstream, account_entry

NOWHERE = {"UPSTREAM_REGISTRY": "http://127.0.0.1:9"}
ALICE = account_entry("alice")


def cli(*arguments: str, **settings: str) -> Ran:
    return run(command(*arguments), env=environment(free_port(), settings), seconds=20)


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("ACCOUNTS", {"ACCOUNTS": ","}),
        ("ACCOUNTS", {"ACCOUNTS": f"{ALICE},bm8gY29sb24="}),
        ("ACCOUNTS", {"ACCOUNTS": f"{ALICE},%%%"}),
        ("SKIP_AUTH_PROXY", {"SKIP_AUTH_PROXY": "true", "ACCOUNTS": ALICE}),
        ("SKIP_AUTH_PROXY", {"SKIP_AUTH_PROXY": "true", "UPSTREAM_IDENTITY": "anonymous"}),
        ("SKIP_AUTH_PROXY", {"SKIP_AUTH_PROXY": "perhaps"}),
        (
            "ALLOW_EVERYONE",
            {"HOST": "0.0.0.0", "UPSTREAM_USERNAME": "alice", "UPSTREAM_PASSWORD": ACCOUNTS["alice"]},
        ),
        ("UPSTREAM_IDENTITY", {"UPSTREAM_IDENTITY": "service"}),
        ("UPSTREAM_IDENTITY", {"UPSTREAM_IDENTITY": "somebody"}),
        ("SERVER_SECRET", {"SERVER_SECRET": "too-short-to-be-one"}),
        ("UPSTREAM_REGISTRY", {"UPSTREAM_REGISTRY": "registry.example.com"}),
        ("UPSTREAM_CA", {"UPSTREAM_CA": "/nowhere/ca.pem"}),
        ("PORT", {"PORT": "http"}),
        ("HOST, PORT", {"HOST": "x" * 70}),
    ],
)
def test_an_invalid_setting_stops_the_start_with_a_one_line_message(named: str, settings: dict[str, str]) -> None:
    ended = cli("serve", **{**NOWHERE, **settings})
    lines = ended.output.strip().split("\n")[1:]
    assert (ended.status, len(lines)) == (2, 1), ended.output
    assert named in lines[0]
    for secret in (ALICE, "bm8gY29sb24=", "no colon", "%%%", ACCOUNTS["alice"], "too-short-to-be-one"):
        assert secret not in lines[0]


def test_the_message_names_a_malformed_account_by_its_position() -> None:
    assert "2" in cli("serve", **NOWHERE, ACCOUNTS=f"{ALICE},bm8gY29sb24=").output.split("\n")[1]


@pytest.mark.real("docker-registry")
def test_check_config_reports_a_realm_that_would_be_refused(token_registry: TokenUpstream) -> None:
    refused = cli("check-config", UPSTREAM_REGISTRY=token_registry.url)
    assert "UPSTREAM_REALMS" in refused.output
    named = cli("check-config", **token_registry.settings)
    assert (named.status, "UPSTREAM_REALMS" in named.output) == (0, False), named.output
