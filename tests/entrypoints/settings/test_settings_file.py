"""The settings file: its content, and the messages about errors in it."""

from functools import partial
from pathlib import Path

import pytest

from domain.access import Credentials
from domain.known_registries import KNOWN_REGISTRIES
from domain.names import RepositoryName, Tag
from domain.records import TagKey
from domain.trust import UpstreamIdentity
from tests.entrypoints.environment import Read, refusal


def test_numbers_in_the_file_need_no_quotes(read: Read) -> None:
    assert read("cache_size = 1048577\nskip_auth_proxy = true").cache_size.size == 1048577


def test_a_single_name_needs_no_list(read: Read) -> None:
    (upstream,) = read('upstreams = [{name = "quay.io", names = "corp, team"}]').table.upstreams
    assert upstream.aliases == {"quay.io", "corp", "team"}


def test_upstreams_can_be_a_list_of_well_known_names(read: Read) -> None:
    table = read('upstreams = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"]').table
    assert [one.url for one in table.upstreams] == [
        "https://registry-1.docker.io",
        "https://ghcr.io",
        "https://quay.io",
        "https://registry.k8s.io",
    ]
    assert {one.trust.identity for one in table.upstreams} == {UpstreamIdentity.ANONYMOUS}
    assert all(one.trust.shares_host for one in table.upstreams)
    assert [one.library_prefix for one in table.upstreams] == [True, False, False, False]
    assert str(table.source_of(RepositoryName("nginx")).repository) == "library/nginx"
    assert table.upstream_of(table.hint_of(namespace="registry-1.docker.io")).name == "docker.io"


@pytest.mark.parametrize("name", KNOWN_REGISTRIES)
def test_a_well_known_name_sets_address_search_and_realms(read: Read, name: str) -> None:
    settings = read(f'upstreams = ["{name}"]')
    (upstream,) = settings.table.upstreams
    assert upstream.name == name
    assert settings.table.upstream_of(settings.table.hint_of(prefix=name)) == upstream
    assert upstream.trust.identity is UpstreamIdentity.CLIENT, "alone, callers bring their own login"


def test_an_upstream_takes_all_its_keys(read: Read, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    upstream, other = read(
        f"""
        accounts = ["YW5uOmh1bnRlcjI="]
        [[upstreams]]
        name = "corp"
        url = "https://harbor.corp.test/v2/"
        names = ["harbor.corp.test"]
        hosts = ["images.corp.test"]
        username = "robot$mirror"
        password_file = "{tmp_path}/password"
        realms = ["login.corp.test"]
        search = "https://search.corp.test/v1/search"
        library = true
        timeout = 5
        [[upstreams]]
        name = "docker.io"
        url = "https://hub.corp.test"
        identity = "client"
        """
    ).table.upstreams
    assert (upstream.name, upstream.url) == ("corp", "https://harbor.corp.test")
    assert {"corp", "harbor.corp.test"} <= upstream.names
    assert upstream.hosts == {"images.corp.test"}
    assert upstream.credentials == Credentials("robot$mirror", "secret")
    assert upstream.realms == {"login.corp.test"}
    assert (upstream.search_url, upstream.library_prefix) == ("https://search.corp.test/v1/search", True)
    assert (other.url, other.library_prefix) == ("https://hub.corp.test", True), "its name brings the rest"
    assert "secret" not in repr(upstream)


def test_the_default_upstream_is_the_first_or_the_named_one(read: Read) -> None:
    names = 'upstreams = ["ghcr.io", "quay.io"]\n'
    assert read(names).table.upstream_of().name == "ghcr.io"
    assert read(names + 'default_upstream = "quay.io"').table.upstream_of().name == "quay.io"
    assert read(names + 'default_upstream = "Quay.io"').table.upstream_of().name == "quay.io"


def test_one_upstream_and_those_with_their_own_hosts_can_use_client_logins(read: Read) -> None:
    first, second, third = read(
        """
        [[upstreams]]
        name = "docker.io"
        identity = "client"
        [[upstreams]]
        name = "quay.io"
        [[upstreams]]
        name = "ghcr.io"
        identity = "client"
        hosts = ["ghcr.mirror.test"]
        """
    ).table.upstreams
    assert (first.trust.shares_host, second.trust.shares_host, third.trust.shares_host) == (True, True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("upstreams = [", "CONFIG: got "),
        ("prot = 1", "prot: is not a setting; did you mean port?"),
        ("config = 1", "config: is not a setting"),
        ("port = 99999", "port: got 99999; takes a port number from 1 to 65535"),
        ('server_secret = "short"', "server_secret: is too short; takes 32 bytes or more"),
        ("", ", which is empty; takes the path of a TOML file"),
        ("a = " + "[" * 5000, "CONFIG: got "),
        ("accounts = 1", "accounts: takes base64 of user:password"),
        ("port = true", "port: got true; takes a port number from 1 to 65535"),
        ("port = {a = 1}", "port: got {'a': 1}; takes a port number"),
        ("trusted_proxies = [1]", "trusted_proxies: got [1]; takes addresses or networks"),
        ("trusted_proxies = 1.5", "trusted_proxies: got 1.5; takes addresses or networks"),
        ("cache_size = 5", "cache_size: got 5; takes 1MiB at least"),
        ('tls_key = "-----BEGIN hunter2"', "tls_key: takes the path of a PEM file"),
        (f'tls_key = "/{"x" * 5000}"', "cannot be read (File name too long); takes the path of a PEM file"),
        ('upstreams = [{name = "a\\nb"}]', "upstream 1: name: got 'a\\nb'; takes a name"),
        ('upstreams = [{name = "quay.io", names = 1}]', "upstream quay.io: names: got 1; takes hosts"),
        ('upstreams = [{name = "quay.io", timeout = true}]', "upstream quay.io: timeout: got true; takes seconds"),
        (
            'upstreams = [{name = "quay.io", url = "https://ann:hunter2@quay.io"}]',
            "upstream quay.io: url: got '***@quay.io'; takes an address",
        ),
        (
            'upstreams = [{name = "quay.io", username = "ann", password_file = "hunter2"}]',
            "upstream quay.io: password_file: cannot be read (No such file or directory)",
        ),
        ('upstreams = "docker.io"', "upstreams: takes a list of names and tables"),
        ("upstreams = [1]", "upstreams: entry 1: takes a registry's name or a table"),
        ('upstreams = [{nam = "x"}]', "upstreams: entry 1: nam: is not a setting; did you mean name?"),
        ('upstreams = [{title = "x"}]', "upstreams: entry 1: title: is not a setting"),
        ('upstreams = ["hub"]', "upstream hub: url: is missing; only a name with a dot, such as quay.io, needs none"),
        ('upstreams = [{identity = "client"}]', "upstream 1: url: is missing"),
        ('upstreams = ["a b"]', "upstream 1: name: got 'a b'; takes a name such as registry.example.com or hub"),
        ('upstreams = ["quay.io", "quay.io"]', "upstream quay.io: is defined twice"),
        (
            'upstreams = ["quay.io", {name = "other", url = "https://quay.io"}]',
            "two upstreams have the address https://quay.io; the cache could not tell their content apart",
        ),
        (  # under another host name, where no name of the one is in the other's way
            'upstreams = ["quay.io", {url = "https://quay.io/v2", hosts = ["a.test"], identity = "client"}]',
            "two upstreams have the address https://quay.io; the cache could not tell their content apart",
        ),
        ('upstreams = [{url = "quay.io"}]', "upstream 1: url: got 'quay.io'; takes an address such as"),
        (
            'upstreams = [{name = "quay.io", identity = "root"}]',
            "upstream quay.io: identity: got 'root'; takes client, anonymous or service",
        ),
        ('upstreams = [{name = "quay.io", username = "me"}]', "upstream quay.io: identity: got 'service'; "),
        (
            'upstreams = [{name = "quay.io", username = "me", password = "x", password_file = "/y"}]',
            "upstream quay.io: password: is set, and password_file too; takes one of them",
        ),
        (
            'upstreams = [{name = "quay.io", username = "me", password_file = "/nowhere"}]',
            "upstream quay.io: password_file: got '/nowhere'; cannot be read",
        ),
        ('upstreams = [{name = "quay.io", timeout = 0}]', "upstream quay.io: timeout: got 0; takes seconds of silence"),
        ('upstreams = [{name = "quay.io", ca = "/nowhere"}]', "upstream quay.io: ca: got '/nowhere'; takes the path"),
        ('default_upstream = "quay.io"', "default_upstream: there are no upstreams to choose from"),
        (
            'upstreams = ["ghcr.io"]\ndefault_upstream = "quay.io"',
            "default_upstream: got 'quay.io'; takes one of ghcr.io",
        ),
        ('upstreams = ["ghcr.io"]\ndefault_upstream = ["ghcr.io"]', "default_upstream: got ['ghcr.io']; takes one of"),
        ('upstreams = [{name = "quay.io", username = "me", password = ""}]', "upstream quay.io: password: takes a"),
        (
            'upstreams = [{name = "quay.io", names = ["hub"]}, {name = "ghcr.io", names = ["hub"]}]',
            "two upstreams have the name hub",
        ),
        (
            'upstreams = [{name = "quay.io", hosts = ["a.test"]}, {name = "ghcr.io", hosts = ["a.test"]}]',
            "two upstreams have the host a.test",
        ),
        (
            'upstreams = [{name = "quay.io", identity = "client"}, {name = "ghcr.io", identity = "client"}]',
            "https://quay.io and https://ghcr.io both have the identity client under one host name",
        ),
        (
            'upstreams = ["quay.io", "ghcr.io"]\nskip_auth_proxy = true',
            "SKIP_AUTH_PROXY=true cannot be combined with ACCOUNTS, HTPASSWD_FILE or an UPSTREAM_IDENTITY but client",
        ),
        ("rules = 1", "rules: got 1; takes tables, each under [[rules]]"),
        ("[[rules]]", "rules: entry 1: takes either allow or deny, each a list of patterns of repositories"),
        ('[[rules]]\nallow = ["a/*"]\ndeny = ["a/b"]', "rules: entry 1: takes either allow or deny"),
        ('[[rules]]\nalow = ["a/*"]', "rules: entry 1: alow: is not a setting; did you mean allow?"),
        ('[[rules]]\nallow = "a/*"', "rules: entry 1: allow: got 'a/*'; takes a list of patterns of repositories"),
        ('[[rules]]\nallow = ["a/[b]"]', "rules: entry 1: allow: got ['a/[b]']; "),
        (
            'upstreams = ["quay.io", {url = "https://harbor.test", names = ["corp"]}]\n[[rules]]\ndeny = ["corp/a/**"]',
            "rules: got 'corp/a/**', where 'corp' is a name of https://harbor.test; takes a name with a dot or a port",
        ),
        ('[[rules]]\ndeny = ["ghcr.oi/**"]', "rules: got 'ghcr.oi/**', which matches no registry that is mirrored"),
        ('[[rules]]\nallow = ["a/*"]\naccounts = ["bob"]', "rules: a rule names accounts, but no accounts are set"),
        (
            '[[upstreams]]\nname = "quay.io"\nfreshness = [{tag_ttl = 1}]',
            "freshness: entry 1: a freshness rule must name",
        ),
        (
            '[[upstreams]]\nname = "quay.io"\nfreshness = [{tags = ["a?"], tag_ttl = 1}]',
            "upstream quay.io: freshness: entry 1: tags: got ['a?']; ",
        ),
        (
            '[[upstreams]]\nname = "quay.io"\nstale_ttl = 5\nfreshness = [{tags = ["*"], stale_ttl = 6}]',
            "a freshness rule's stale_ttl (6) is longer than the upstream's stale_ttl (5)",
        ),
        (
            'upstreams = ["quay.io", {name = "ghcr.io", username = "me", password = "hunter2"}]',
            "everyone who reaches this service would read your private content",
        ),
    ],
)
def test_a_message_names_file_key_and_reason(read: Read, tmp_path: Path, text: str, message: str) -> None:
    line = refusal(partial(read, text))
    assert message in line
    assert str(tmp_path / "mirror.toml") in line
    assert "hunter2" not in line
    assert "short" not in line.replace("too short", "")


def test_an_empty_account_list_in_the_file_is_an_error(read: Read) -> None:
    assert "accounts" in refusal(partial(read, "accounts = []")).lower()


def test_access_rules_are_read_from_the_file(read: Read) -> None:
    settings = read(
        """
        accounts = ["YW5uOmh1bnRlcjI="]
        [[rules]]
        allow = ["docker.io/grafana/*"]
        accounts = ["ann"]
        [[rules]]
        deny = ["quay.io/**"]
        [[upstreams]]
        name = "docker.io"
        [[upstreams]]
        name = "quay.io"
        """
    )
    may = settings.access_rules.may_pull
    grafana = settings.table.source_of(RepositoryName("grafana/loki"))
    assert (may("ann", grafana), may("bob", grafana)) == (True, False)
    assert not may("ann", settings.table.source_of(RepositoryName("quay.io/grafana/loki")))


def test_each_upstream_can_have_its_own_times(read: Read) -> None:
    settings = read(
        """
        tag_ttl = 10
        [[upstreams]]
        name = "docker.io"
        grant_ttl = 1
        [[upstreams.freshness]]
        tags = ["v*"]
        tag_ttl = 1000
        [[upstreams]]
        name = "quay.io"
        tag_ttl = 20
        """
    )
    hub, quay = settings.table.upstreams
    times, others = settings.cache_policy.times_of(hub), settings.cache_policy.times_of(quay)
    assert (times.tag_ttl, times.grant_ttl, times.stale_ttl) == (10, 1, 86400)
    assert (others.tag_ttl, others.grant_ttl) == (20, 300)
    source = settings.table.source_of(RepositoryName("nginx"))
    assert [times.tag_ttl_of(TagKey(source, Tag(tag), "")) for tag in ("v1", "latest")] == [1000, 10]
    assert settings.cache_policy.by_upstream.keys() == {hub, quay}


def test_a_well_known_registry_at_another_address_has_neither_search_nor_realms(read: Read) -> None:
    (upstream,) = read('upstreams = [{ name = "quay.io", url = "https://quay.corp.test" }]').table.upstreams
    assert (upstream.name, upstream.search_url) == ("quay.io", None)
    (upstream,) = read('upstreams = [{ name = "lscr.io", url = "https://lscr.corp.test" }]').table.upstreams
    assert upstream.realms == frozenset()
    (upstream,) = read('upstreams = [{ name = "docker.io", url = "https://hub.corp.test" }]').table.upstreams
    assert upstream.library_prefix
