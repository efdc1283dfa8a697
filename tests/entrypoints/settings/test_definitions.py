"""Every setting: its default, a valid value, an invalid one, and the message about the invalid one."""

import ipaddress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_data_path

from domain.access import Credentials
from domain.htpasswd import HashedLogin
from domain.redis_address import RedisAddress, RedisKind
from domain.trust import UpstreamIdentity
from entrypoints.settings import Settings
from entrypoints.settings.sources import KNOWN_NAMES
from entrypoints.settings.values import CacheSize
from tests.e2e.support.certificates import make_authority
from tests.entrypoints.environment import ANN, Load, refusal
from tests.fakes.parts import settings_of

HASH = "$2y$05$" + "a" * 21 + "e" + "b" * 31
ADDRESS = "takes an address such as https://registry.example.com, without user, query or fragment"

# Setting: its default, the text of a good value, that value, a bad text (None where any text is good), what is said.
TABLE: dict[str, tuple[Any, str, Any, str | None, str]] = {
    "port": (8080, "5000", 5000, "65536", "takes a port number from 1 to 65535"),
    "upstream_registry": ("https://registry-1.docker.io", "http://h:5000/a/", "http://h:5000/a", "h:5000", ADDRESS),
    "self_registry": (None, "https://mirror.test", "https://mirror.test", "ftp://mirror.test", ADDRESS),
    "self_auth_service": (
        "docker-image-proxy",
        "a.b:5/c",
        "a.b:5/c",
        'a"b',
        "takes a name of letters, digits and ._:/-",
    ),
    "metrics_port": (None, "9100", 9100, "0", "takes a port number from 1 to 65535"),
    "admin_accounts": ((), f"olga:{HASH}", (HashedLogin("olga", HASH),), None, ""),
    "metrics_accounts": ((), ANN, (Credentials("ann", "hunter2"),), None, ""),
    "accounts": ((), ANN, (Credentials("ann", "hunter2"),), None, ""),
    "skip_auth_proxy": (False, "true", True, "perhaps", "takes true or false"),
    "host": ("0.0.0.0", "127.0.0.1", "127.0.0.1", None, ""),
    "workers": (2, "8", 8, "0", "takes a number of processes from 1 to 256"),
    "trusted_proxies": (
        (),
        "10.0.0.0/8, ::1",
        (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1")),
        "10.0.0.1/8",
        "takes addresses or networks such as 10.0.0.0/8, separated by commas",
    ),
    "shutdown_grace": (30, "0.5", 0.5, "-1", "takes seconds from 0 to 3600"),
    "token_ttl": (300, "60", 60, "59", "takes seconds from 60 to 86400"),
    "page": ("public", "off", "off", "on", "takes off, public or admin"),
    "log_level": ("info", "debug", "debug", "loud", "takes debug, info, warning or error"),
    "log_format": ("text", "json", "json", "xml", "takes text or json"),
    "upstream_identity": (
        UpstreamIdentity.CLIENT,
        "anonymous",
        UpstreamIdentity.ANONYMOUS,
        "root",
        "takes client, anonymous or service",
    ),
    "upstream_username": (None, "bob", "bob", "b:ob", "takes a user name"),
    "allow_everyone": (False, "1", True, "all", "takes true or false"),
    "upstream_names": (
        frozenset(),
        "Quay.io, mirror.test:5000,",
        frozenset({"quay.io", "mirror.test:5000"}),
        "https://quay.io",
        "takes hosts, each HOST or HOST:PORT, separated by commas",
    ),
    "upstream_realms": (
        frozenset(),
        "Auth.test:8443, b.test",
        frozenset({"auth.test:8443", "b.test"}),
        "https://auth.test",
        "takes hosts, each HOST or HOST:PORT, separated by commas",
    ),
    "upstream_fallbacks": (
        (),
        "http://second.test:5000/a/, https://third.test,",
        ("http://second.test:5000/a", "https://third.test"),
        "http://second.test, third.test",
        "takes addresses such as https://registry.example.com, without user, query or fragment, separated by commas",
    ),
    "upstream_max_connections": (None, "8", 8, "0", "takes a number from 1 to 65535"),
    "upstream_max_rate": (None, "0.5", 0.5, "0", "takes requests a second, up to 1000000"),
    "upstream_timeout": (25, "2.5", 2.5, "0", "takes seconds of silence, up to 600"),
    "search_upstream": (None, "https://s.test/v1/search", "https://s.test/v1/search", "https://s.test?q=", ADDRESS),
    "http_proxy": (None, "socks5h://a:b@p.test", "socks5h://a:b@p.test", "p q", "takes an address"),
    "https_proxy": (None, "p.test:3128", "http://p.test:3128", "socks4://p.test", "takes an address"),
    "no_proxy": ("", "a.test,.b.test", "a.test,.b.test", None, ""),
    "cache_dir": (
        user_data_path("docker-image-proxy", appauthor=False),
        "/var/cache/mirror",
        Path("/var/cache/mirror"),
        "var/cache",
        "takes an absolute path, or off",
    ),
    "cache_size": (
        CacheSize(size=20 * 2**30),
        "1.5 GiB",
        CacheSize(size=3 * 2**29),
        "much",
        "takes bytes, a size such as 20GiB, or a share of the disk such as 80%",
    ),
    "shared_store": (
        None,
        "s3://images/mirror/",
        "s3://images/mirror",
        "ftp://images/mirror",
        "takes s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER",
    ),
    "shared_index": (
        None,
        "redis://index.test/2",
        RedisAddress(RedisKind.SINGLE, (("index.test", 6379),), database=2),
        "http://index.test",
        "takes redis://HOST:PORT/DATABASE, redis+sentinel://",
    ),
    "shared_size": (100 * 2**30, "1.5TiB", 3 * 2**39, "80%", "takes bytes, or a size such as 500GiB"),
    "tag_ttl": (60, "0", 0, "31536001", "takes seconds from 0 to 31536000"),
    "grant_ttl": (300, "0.5", 0.5, "86401", "takes seconds from 0 to 86400"),
    "stale_ttl": (86400, "0", 0, "-1", "takes seconds from 0 to 31536000"),
    "download_connections": (4, "1", 1, "65", "takes a number from 1 to 64"),
    "fill_retries": (5, "0", 0, "101", "takes a number from 0 to 100"),
    "pin_check_interval": (3600, "1", 1, "0.9", "takes seconds from 1 to 31536000"),
    "request_timeout": (30, "5", 5, "0.9", "takes seconds from 1 to 600"),
    "max_connections": (4096, "16", 16, "15", "takes a number from 16 to 1000000"),
    "max_waiting_per_address": (256, "1", 1, "0", "takes a number from 1 to 1000000"),
    "otel_exporter_otlp_endpoint": (
        None,
        "http://traces.test:4318/",
        "http://traces.test:4318",
        "traces:4318",
        ADDRESS,
    ),
    "otel_exporter_otlp_headers": (
        (),
        "authorization=Bearer%20a,x-team=b",
        (("authorization", "Bearer a"), ("x-team", "b")),
        None,
        "",
    ),
    "otel_service_name": ("docker-image-proxy", "mirror", "mirror", None, ""),
    "otel_resource_attributes": (
        (),
        "zone=eu%2C1, team=infra",
        (("zone", "eu,1"), ("team", "infra")),
        "zone",
        "takes NAME=VALUE, percent-encoded, separated by commas",
    ),
    "otel_traces_sampler": (
        "parentbased_always_on",
        "traceidratio",
        "traceidratio",
        "jaeger_remote",
        "takes always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_tr",
    ),
    "otel_traces_sampler_arg": (1.0, "0.1", 0.1, "1.1", "takes a number from 0 to 1"),
    "delivery_idle": (120, "1", 1, "0.9", "takes seconds of silence from 1 to 86400"),
}
ELSEWHERE = {
    "config",
    "upstreams",
    "default_upstream",
    "rules",
    "server_secret",
    "upstream_password",
    "tls_cert",
    "tls_key",
    "upstream_ca",
}
ELSEWHERE |= {"upstream_client_cert", "upstream_client_key"}
ELSEWHERE |= {"otel_exporter_otlp_headers_file"}
ELSEWHERE |= {"shared_index_password", "shared_index_password_file"}
ELSEWHERE |= {
    "admin_accounts_file",
    "metrics_accounts_file",
    "htpasswd_file",
    "accounts_file",
    "server_secret_file",
    "upstream_password_file",
}
NUMBERS = ["port", "workers", "token_ttl", "shutdown_grace", "upstream_timeout"]
NUMBERS += ["tag_ttl", "grant_ttl", "stale_ttl", "download_connections", "fill_retries", "delivery_idle"]
NUMBERS += ["pin_check_interval"]
NUMBERS += ["request_timeout", "max_connections", "max_waiting_per_address"]
NUMBERS += ["upstream_max_connections", "upstream_max_rate"]
COMPANIONS = {
    "upstream_username": {"UPSTREAM_PASSWORD": "pw", "HOST": "127.0.0.1"},
    "shared_store": {"SHARED_INDEX": "redis://index.test", "SERVER_SECRET": "s" * 32},
    "shared_index": {"SHARED_STORE": "s3://images", "SERVER_SECRET": "s" * 32},
    "upstream_fallbacks": {"UPSTREAM_REGISTRY": "http://first.test"},
}


def value_of(settings: Settings, name: str) -> object:
    return settings.by_name()[name.upper()]


def test_the_table_above_has_all_settings() -> None:
    assert set(TABLE) | ELSEWHERE == KNOWN_NAMES


@pytest.mark.parametrize("name", TABLE)
def test_setting_has_its_default_when_unset(load: Load, name: str) -> None:
    assert value_of(load(), name) == TABLE[name][0]


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"accounts", "admin_accounts", "metrics_accounts"}))
def test_empty_variable_counts_as_unset(load: Load, name: str) -> None:
    assert value_of(load(**{name.upper(): ""}), name) == TABLE[name][0]


@pytest.mark.parametrize("name", TABLE)
def test_good_value_is_read_from_environment(load: Load, name: str) -> None:
    _, text, value, _, _ = TABLE[name]
    assert value_of(load(**{name.upper(): text}, **COMPANIONS.get(name, {})), name) == value


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[3] is not None])
def test_bad_value_is_named_in_the_refusal(load: Load, name: str) -> None:
    bad, takes = TABLE[name][3:]
    line = refusal(load, **{name.upper(): str(bad)})
    # Where a login may stand, by mistake or by right, the value is not repeated.
    got = "" if name in {"upstream_username", "http_proxy", "https_proxy"} else f"got {bad!r}; "
    assert line.startswith(f"{name.upper()}: {got}")
    assert takes in line
    assert got or str(bad) not in line


@pytest.mark.parametrize("name", NUMBERS)
def test_invalid_numbers_are_refused(load: Load, name: str) -> None:
    for bad in ("x", "nan", "inf", "1e9", "-1", " ", "0x10", "8080\n1"):
        assert refusal(load, **{name.upper(): bad}).startswith(f"{name.upper()}: got "), bad


@pytest.mark.parametrize("name", ["upstream_registry", "self_registry", "search_upstream"])
def test_invalid_addresses_are_refused(load: Load, name: str) -> None:
    odd = ("https://", "https://h:99999", "https://h:0", "https://h:x", "https://[zz]", "https://h/a b", "https://h\n")
    for bad in (
        *odd,
        "https://h/\n",
        "https://h?a=b",
        "https://h#a",
        "//h",
        "HTTPS//h",
        "https://h\tx",
        "https://é.test",
    ):
        line = refusal(load, **{name.upper(): bad})
        assert line == f"{name.upper()}: got {bad!r}; {ADDRESS}"


def test_lower_case_proxy_variables_are_read(load: Load) -> None:
    settings = load(https_proxy="http://p.test:1", no_proxy="a.test")
    assert (settings.https_proxy, settings.no_proxy) == ("http://p.test:1", "a.test")


@pytest.mark.parametrize(
    "beside",
    [{"ACCOUNTS": ANN}, {"UPSTREAM_IDENTITY": "anonymous"}, {"UPSTREAM_USERNAME": "b", "UPSTREAM_PASSWORD": "c"}],
)
def test_skip_auth_proxy_excludes_settings_of_authentication(load: Load, beside: dict[str, str]) -> None:
    line = refusal(load, SKIP_AUTH_PROXY="true", HOST="127.0.0.1", **beside)
    assert (
        line
        == "SKIP_AUTH_PROXY=true cannot be combined with ACCOUNTS, HTPASSWD_FILE or an UPSTREAM_IDENTITY but client"
    )


def test_skip_auth_proxy_alone_is_accepted(load: Load) -> None:
    assert load(SKIP_AUTH_PROXY="true", UPSTREAM_IDENTITY="client").table.upstreams[0].trust.fixed_row


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_user_name_implies_the_service_identity(load: Load, host: str) -> None:
    settings = load(UPSTREAM_USERNAME="bob", UPSTREAM_PASSWORD="pw", HOST=host)
    assert settings.upstreams[0].identity is UpstreamIdentity.SERVICE
    assert settings.table.upstreams[0].credentials == Credentials("bob", "pw")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "mirror.test"])
def test_service_identity_for_everyone_is_refused(load: Load, host: str) -> None:
    line = refusal(load, UPSTREAM_USERNAME="bob", UPSTREAM_PASSWORD="hunter2", HOST=host)
    assert line.startswith("UPSTREAM_IDENTITY: got 'service' without ACCOUNTS on HOST ")
    assert line.endswith("takes ACCOUNTS, a loopback HOST, or ALLOW_EVERYONE=true")
    assert "hunter2" not in line


@pytest.mark.parametrize("beside", [{"ALLOW_EVERYONE": "true"}, {"ACCOUNTS": ANN}])
def test_the_service_identity_for_everyone_can_be_allowed(load: Load, beside: dict[str, str]) -> None:
    assert load(UPSTREAM_USERNAME="bob", UPSTREAM_PASSWORD="pw", **beside).table.upstreams[0].credentials


@pytest.mark.parametrize(
    "variables",
    [
        {"UPSTREAM_IDENTITY": "service"},
        {"UPSTREAM_USERNAME": "bob"},
        {"UPSTREAM_PASSWORD": "hunter2"},
        {"UPSTREAM_IDENTITY": "client", "UPSTREAM_USERNAME": "bob", "UPSTREAM_PASSWORD": "hunter2"},
        {"UPSTREAM_IDENTITY": "anonymous", "UPSTREAM_USERNAME": "bob", "UPSTREAM_PASSWORD": "hunter2"},
        {"UPSTREAM_IDENTITY": "client", "UPSTREAM_USERNAME": "bob"},
    ],
)
def test_an_incomplete_login_is_an_error(load: Load, variables: dict[str, str]) -> None:
    line = refusal(load, HOST="127.0.0.1", **variables)
    assert "UPSTREAM_USERNAME" in line
    assert "hunter2" not in line


def test_certificates_are_loaded_at_start(load: Load, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    good = {"TLS_CERT": str(authority.server.certificate), "TLS_KEY": str(authority.server.key)}
    assert load(**good, UPSTREAM_CA=str(authority.certificate)).tls_cert == authority.server.certificate
    (garbage := tmp_path / "garbage").write_text("hunter2")
    assert refusal(load, **good | {"TLS_KEY": str(garbage)}).startswith("TLS_CERT, TLS_KEY: got ")
    assert refusal(load, UPSTREAM_CA=str(garbage)) == (
        f"UPSTREAM_CA: got {str(garbage)!r}; takes a file of PEM certificates"
    )


@pytest.mark.parametrize("name", ["TLS_CERT", "TLS_KEY", "UPSTREAM_CA"])
def test_missing_pem_file_is_named(load: Load, tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "none")
    assert refusal(load, **{name: path}) == f"{name}: got {path!r}; takes the path of a PEM file"


@pytest.mark.parametrize("name", ["TLS_CERT", "TLS_KEY"])
def test_a_certificate_without_its_key_is_an_error(load: Load, tmp_path: Path, name: str) -> None:
    pair = make_authority(tmp_path).server
    line = refusal(load, **{name: str(pair.certificate if name == "TLS_CERT" else pair.key)})
    assert "TLS_CERT" in line
    assert "TLS_KEY" in line


def test_settings_are_immutable(load: Load) -> None:
    with pytest.raises(FrozenInstanceError):
        load().port = 1


def test_replaced_settings_compute_derived_values_again() -> None:
    settings = settings_of(tag_ttl=60, skip_auth_proxy=True)
    assert settings.cache_policy.default.tag_ttl == 60
    assert replace(settings, cache_dir=None).cache_policy.default.tag_ttl == 0
    assert not replace(settings, skip_auth_proxy=False).table.upstreams[0].trust.skip_auth_proxy


def test_accounts_without_self_registry_are_warned_of(load: Load) -> None:
    assert "SELF_REGISTRY" in load(ACCOUNTS=ANN).warnings[0]
    assert load(ACCOUNTS=ANN, HOST="127.0.0.1").warnings == ()
    assert load(ACCOUNTS=ANN, HOST="", SELF_REGISTRY="https://mirror.test").warnings == ()
    assert load().warnings == ()


def test_the_metrics_need_another_port_than_pulls(load: Load) -> None:
    assert refusal(load, METRICS_PORT="8080") == "METRICS_PORT: got 8080, which is PORT; takes another port"


@pytest.mark.parametrize("bad", ["hunter2", "a b=hunter2", "a=hunter2%0d%0ab: c"])
def test_invalid_headers_for_the_collector_are_not_repeated(load: Load, bad: str) -> None:
    line = refusal(load, OTEL_EXPORTER_OTLP_HEADERS=bad)
    assert line == "OTEL_EXPORTER_OTLP_HEADERS: takes NAME=VALUE, percent-encoded, separated by commas"


def test_headers_for_the_collector_are_not_printed(load: Load) -> None:
    assert "hunter2" not in repr(load(OTEL_EXPORTER_OTLP_HEADERS="authorization=hunter2"))


def test_operators_can_be_in_an_htpasswd_file(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "operators"
    file.write_text(f"# olga, otto\nolga:{HASH}\n\notto:{HASH}\n")
    assert [one.user for one in load(ADMIN_ACCOUNTS_FILE=str(file)).admin_accounts] == ["olga", "otto"]
    separated = {load(ADMIN_ACCOUNTS=f"olga:{HASH}{one}otto:{HASH}").admin_accounts for one in (",", "\n")}
    assert [[login.user for login in logins] for logins in separated] == [["olga", "otto"]]
    assert HASH not in repr(load(ADMIN_ACCOUNTS=f"olga:{HASH}").admin_accounts)


@pytest.mark.parametrize("text", ["olga", "olga:secret", "olga:{SHA}x", ANN, f"olga:{HASH},olga:{HASH}", "#"])
def test_invalid_operators_are_refused_without_the_value(load: Load, text: str) -> None:
    line = refusal(load, ADMIN_ACCOUNTS=text)
    assert line.startswith("ADMIN_ACCOUNTS: ")
    assert "secret" not in line
    assert ANN not in line


def test_operators_and_accounts_have_different_names(load: Load, tmp_path: Path) -> None:
    assert "contains a user name of ACCOUNTS" in refusal(load, ACCOUNTS=ANN, ADMIN_ACCOUNTS=f"ann:{HASH}")
    file = tmp_path / "htpasswd"
    file.write_text(f"olga:{HASH}\n")
    line = refusal(load, HTPASSWD_FILE=str(file), ADMIN_ACCOUNTS=f"olga:{HASH}")
    assert "repeats a user name of ACCOUNTS or ADMIN_ACCOUNTS" in line


def test_a_page_for_operators_needs_operators(load: Load) -> None:
    assert refusal(load, PAGE="admin").startswith("PAGE: got 'admin' without ADMIN_ACCOUNTS")
    assert load(PAGE="admin", ADMIN_ACCOUNTS=f"olga:{HASH}").page == "admin"


def test_empty_operators_are_an_error(load: Load) -> None:
    for name in ("ADMIN_ACCOUNTS", "ADMIN_ACCOUNTS_FILE"):
        assert refusal(load, **{name: ""}).startswith(f"{name}: is set but empty; takes ")


def test_empty_accounts_of_the_metrics_are_an_error(load: Load) -> None:
    for name in ("METRICS_ACCOUNTS", "METRICS_ACCOUNTS_FILE"):
        assert refusal(load, **{name: ""}).startswith(f"{name}: is set but empty; takes ")


def test_empty_accounts_are_an_error(load: Load) -> None:
    """The value is probably the output of a command that failed."""
    assert refusal(load, ACCOUNTS="").startswith("ACCOUNTS: is set but empty")
