"""The mirror delays and refuses wrong logins that it relays to a real upstream."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.e2e.support.plain_http import UpstreamResponse
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, basic

pytestmark = pytest.mark.real("docker-registry")


@dataclass
class LoginEndpoint:
    """A path to which logins are sent, on a service with one worker."""

    proxy: Proxy
    path: str

    def ask(self, login: str | None, address: str) -> UpstreamResponse:
        return self.proxy.get(self.path, login, **{"X-Forwarded-For": address})

    def guess(self, number: int, address: str = "192.0.2.66") -> UpstreamResponse:
        return self.ask(basic("alice", f"guess-{number}"), address)


@pytest.fixture(params=["row 3", "row 4"])
def endpoint(request: pytest.FixtureRequest, serve: Serving) -> Iterator[LoginEndpoint]:
    """/v2/auth, which relays logins to a token server, or a manifest of an upstream with Basic authentication."""
    if request.param == "row 3":
        upstream = request.getfixturevalue("token_registry")
        path = f"/v2/auth?service=e2e-upstream&scope=repository:{PRIVATE}:pull"
    else:
        upstream = request.getfixturevalue("htpasswd_registry")
        path = f"/v2/{PUBLIC}/manifests/1"
    with serve(**upstream.settings, WORKERS="1", TRUSTED_PROXIES="127.0.0.1") as proxy:
        yield LoginEndpoint(proxy, path)


def test_an_address_that_guesses_upstream_passwords_is_answered_429_with_retry_after(endpoint: LoginEndpoint) -> None:
    for number in range(3):
        assert endpoint.guess(number).status == 401
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(endpoint.guess, range(3, 15)))
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert {answer.status for answer in answers} <= {401, 429}
    assert all(answer.error_codes() == ["TOOMANYREQUESTS"] for answer in refused)
    assert all(10 < int(answer.headers["Retry-After"]) <= 40 for answer in refused)

    assert endpoint.ask(basic("alice"), "192.0.2.67").status == 200, (
        "the correct login from another address is accepted"
    )
    assert endpoint.guess(1, "192.0.2.68").status == 401
    if "/v2/auth" in endpoint.path:
        assert endpoint.ask(None, "192.0.2.66").status == 200, "the same address still gets an anonymous token"
    else:
        assert endpoint.ask(None, "192.0.2.66").status == 401
    log = "".join(endpoint.proxy.process.settled_lines(0))
    assert "from 192.0.2.66" in log
    assert "guess-" not in log


def test_concurrent_requests_with_the_correct_login_are_all_accepted(endpoint: LoginEndpoint) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: endpoint.ask(basic("alice"), "192.0.2.66"), range(40)))
    assert [answer.status for answer in answers] == [200] * 40
