"""The realm: the address of the token endpoint."""

import json
import re

import pytest

from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service

FORWARDED = "X-Forwarded-Proto: https\nX-Forwarded-Host: outside.test"


async def _realm(service: Service, lines: str, version: str = "1.1") -> str:
    answer = await service.ask(f"GET /v2/ HTTP/{version}\n{lines}".rstrip("\n"))
    assert answer.status == 401, answer
    found = re.search(r'realm="([^"]*)"', answer.get("www-authenticate") or "")
    assert found
    return found[1]


async def test_set_address_wins_over_everything(start: Start) -> None:
    service = await start(self_registry="https://mirror.test/", trusted_proxies="127.0.0.0/8")
    for lines in ("Host: other.test", f"Host: other.test\n{FORWARDED}", "Host: b@d host"):
        assert await _realm(service, lines) == "https://mirror.test/v2/auth"


async def test_set_address_may_have_a_path(start: Start) -> None:
    service = await start(self_registry="https://mirror.test/hub")
    assert await _realm(service, "Host: a") == "https://mirror.test/hub/v2/auth"


@pytest.mark.parametrize(
    "host", ["mirror.test", "mirror.test:5000", "10.1.2.3:80", "[::1]:8080", "localhost", "a_b.test"]
)
async def test_host_of_the_request_is_used(start: Start, host: str) -> None:
    assert await _realm(await start(), f"Host: {host}") == f"http://{host}/v2/auth"


async def test_without_a_host_the_realm_is_localhost(start: Start) -> None:
    service = await start(port=5005)
    assert await _realm(service, "", "1.0") == "http://localhost:5005/v2/auth"
    assert await _realm(service, "Host:", "1.0") == "http://localhost:5005/v2/auth"


async def test_malformed_host_is_a_bad_request(start: Start) -> None:
    service = await start()
    malformed = [
        'a"b',
        "a b",
        "user@a",
        "a/b",
        "a:port",
        "a:",
        "-a",
        "a?b",
        "a#b",
        "a\\b",
        "a,b",
        "a:123456",
        "é",
        "[::1",
    ]
    for host in (*malformed, "a" * 256, "a:1:2", "a\x0bb", "<script>"):
        for path in ("/v2/", "/v2/a/manifests/v1", "/v2/_catalog", "/v2/auth", "/v1/search"):
            answer = await service.ask(f"GET {path} HTTP/1.1\nHost: {host}")
            assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "UNSUPPORTED"), (path, host)
    assert service.upstream.asked == []


async def test_probes_do_not_mind_the_host(start: Start) -> None:
    assert (await (await start()).ask("GET /livez HTTP/1.1\nHost: b@d host")).status == 200


@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8", "127.0.0.2", "::1"])
async def test_x_forwarded_fields_of_other_peers_are_ignored(start: Start, trusted: str) -> None:
    service = await start(trusted_proxies=trusted)
    assert await _realm(service, f"Host: inside.test\n{FORWARDED}") == "http://inside.test/v2/auth"


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8, 127.0.0.0/8"])
async def test_trusted_proxies_forward_an_address(start: Start, trusted: str) -> None:
    service = await start(trusted_proxies=trusted)
    for lines, realm in {
        FORWARDED: "https://outside.test/v2/auth",
        "X-Forwarded-Proto: https": "https://inside.test/v2/auth",
        "X-Forwarded-Proto: HTTPS": "https://inside.test/v2/auth",
        "X-Forwarded-Host: outside.test:8443, second.test": "http://outside.test:8443/v2/auth",
        "X-Forwarded-Proto: https, http\nX-Forwarded-Host: outside.test": "https://outside.test/v2/auth",
        "": "http://inside.test/v2/auth",
    }.items():
        assert await _realm(service, f"Host: inside.test\n{lines}") == realm


async def test_forwarded_nonsense_is_a_bad_request(start: Start) -> None:
    service = await start(trusted_proxies="127.0.0.1")
    for line in ("X-Forwarded-Proto: javascript", 'X-Forwarded-Host: a"b', "X-Forwarded-Host: a/b"):
        assert (await service.ask(f"GET /v2/ HTTP/1.1\nHost: a\n{line}")).status == 400, line
