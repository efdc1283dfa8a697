"""Settings of the connections to upstreams: fallbacks, client certificates, limits, proxies."""

from pathlib import Path

import pytest
from yarl import URL

from adapters.upstream.request_limits import RequestLimits
from domain.upstreams import Origin
from entrypoints.wiring.container import open_container, open_upstreams
from tests.adapters.upstream.line import in_loop
from tests.e2e.support.certificates import make_authority
from tests.entrypoints.environment import Load, refusal
from tests.fakes.events import RecordingEventSink
from tests.fakes.parts import settings_of

FIRST = "https://first.test"


def test_the_fallbacks_are_the_upstreams_in_their_order(load: Load) -> None:
    settings = load(UPSTREAM_REGISTRY="https://first.test/v2", UPSTREAM_FALLBACKS="https://b.test/v2/,https://a.test:5")
    (upstream,) = settings.table.upstreams
    assert upstream.url == FIRST
    assert upstream.fallbacks == (
        ("https://b.test", Origin("https", "b.test", 443)),
        ("https://a.test:5", Origin("https", "a.test", 5)),
    )
    assert load(UPSTREAM_REGISTRY=FIRST).table.upstreams[0].fallbacks == ()


def test_a_fallback_without_tls_is_refused_if_the_first_address_has_tls(load: Load) -> None:
    line = refusal(load, UPSTREAM_REGISTRY=FIRST, UPSTREAM_FALLBACKS="https://a.test,http://b.test")
    assert line == "UPSTREAM_FALLBACKS: got 'http://b.test'; takes addresses by https, as the first is"
    assert load(UPSTREAM_REGISTRY="http://first.test", UPSTREAM_FALLBACKS="https://a.test").upstreams[0].fallbacks


def test_a_login_in_a_fallback_is_refused_and_not_shown(load: Load) -> None:
    line = refusal(load, UPSTREAM_REGISTRY=FIRST, UPSTREAM_FALLBACKS="https://a.test,https://bob:hunter2@b.test")
    assert line.startswith("UPSTREAM_FALLBACKS: got ")
    assert "hunter2" not in line


@pytest.mark.parametrize("name", ["UPSTREAM_CLIENT_CERT", "UPSTREAM_CLIENT_KEY"])
def test_a_client_certificate_without_its_key_is_an_error(load: Load, tmp_path: Path, name: str) -> None:
    pair = make_authority(tmp_path).server
    line = refusal(load, **{name: str(pair.certificate)})
    assert line == "UPSTREAM_CLIENT_CERT: takes a file together with UPSTREAM_CLIENT_KEY, or neither"
    path = str(tmp_path / "none")
    assert refusal(load, **{name: path}) == f"{name}: got {path!r}; takes the path of a PEM file"


def test_a_client_certificate_is_loaded_at_start(load: Load, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    good = {
        "UPSTREAM_CLIENT_CERT": str(authority.server.certificate),
        "UPSTREAM_CLIENT_KEY": str(authority.server.key),
    }
    assert load(**good).upstreams[0].client_key == authority.server.key
    line = refusal(load, **good | {"UPSTREAM_CLIENT_KEY": str(authority.certificate)})
    assert line.startswith("UPSTREAM_CLIENT_CERT, UPSTREAM_CLIENT_KEY: got ")


def test_max_connections_must_be_at_least_the_number_of_workers(load: Load) -> None:
    line = refusal(load, WORKERS="4", UPSTREAM_MAX_CONNECTIONS="3")
    assert line == ("UPSTREAM_MAX_CONNECTIONS: got 3; takes WORKERS (4) or more, because the workers share them")
    assert load(WORKERS="1", UPSTREAM_MAX_CONNECTIONS="1").upstreams[0].max_connections == 1


@in_loop
async def test_each_worker_gets_its_share_of_the_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[RequestLimits] = []

    class Limiter:
        def __init__(self, bounds: RequestLimits) -> None:
            made.append(bounds)

    monkeypatch.setattr("adapters.upstream.client.RequestLimiter", Limiter)
    settings = settings_of(workers=2, upstream_max_connections=5, upstream_max_rate=3, cache_dir=tmp_path)
    for worker in range(2):
        async with open_container(settings, worker=worker) as container:
            assert container.clients()[container.upstream()]
    assert made == [RequestLimits(3, 1.5), RequestLimits(2, 1.5)]


FILE = """
workers = 2
[[upstreams]]
name = "corp"
url = "https://one.corp.test"
fallbacks = ["https://two.corp.test/v2/", "https://three.corp.test"]
proxy = "socks5://user:secret@proxy.test"
max_connections = 4
max_rate = 10
[[upstreams]]
name = "quay.io"
"""


@in_loop
async def test_each_upstream_of_the_file_has_its_own_connection_settings(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "mirror.toml").write_text(FILE)
    settings = load(CONFIG=str(file), CACHE_DIR=str(tmp_path / "cache"), HTTPS_PROXY="http://everybodys.test:3128")
    async with open_upstreams(settings, 0, RecordingEventSink()) as clients:
        corp, quay = settings.table.upstreams
        assert [url for url, _ in corp.fallbacks] == ["https://two.corp.test", "https://three.corp.test"]
        assert clients[corp].proxy_to(URL("https://two.corp.test/v2/")) == "socks5://user:secret@proxy.test"
        assert clients[quay].proxy_to(URL("https://quay.io/v2/")) == "http://everybodys.test:3128"
    assert "user:" not in repr(settings)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_connections = 4", "max_connections = 1", "upstream corp: max_connections: got 1; takes WORKERS (2)"),
        ("https://three", "http://three", "upstream corp: fallbacks: got 'http://three.corp.test'; takes addresses by"),
        ("proxy.test", "proxy test", "upstream corp: proxy: takes an address such as"),
        ("max_rate = 10", 'client_key = "/etc/hostname"', "upstream corp: client_cert: takes a file together with"),
    ],
)
def test_messages_about_connection_settings_name_the_upstream(
    load: Load, tmp_path: Path, old: str, new: str, said: str
) -> None:
    (file := tmp_path / "mirror.toml").write_text(FILE.replace(old, new))
    line = refusal(load, CONFIG=str(file))
    assert said in line
    assert "secret" not in line
